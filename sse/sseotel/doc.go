// Package sseotel adds OpenTelemetry metrics and traces to ciphers, key services,
// key rings and jobs.
//
// Make one [Telemetry] and wrap what you already have:
//
//	tel, err := sseotel.New() // or with sseotel.WithMeterProvider(provider)
//	client := tel.Client(cache.New(tel.Client(service), nil))
//	mode, err := sse.NewKMS(client, keyID, nil)
//	bucket, err := blob.NewBucket(inner, "photos", tel.Cipher(mode), nil)
//
// Observe what runs beside requests. Each call returns a function that ends the
// observation:
//
//	stop := tel.ObserveRing("photos", ring)
//	stop := tel.ObserveCache("photos", cache)
//	stop := tel.ObserveService("keys", localService)
//	sink := tel.Sink(fileSink) // for audit.NewClient
//
// METRICS.md lists every metric, span and attribute. alerts.yaml has alert rules for
// Prometheus, and dashboard.json is a dashboard for Grafana.
//
// # Wrappers lose no refusal
//
// Before each answer, a cache asks its client whether the key may be used now: see
// [kms.Authorizer]. The wrappers of this package forward that question, and have Unwrap, so
// telemetry, audit and cache work in any order. If your own wrapper only embeds
// [kms.Client], disabled keys are no longer refused.
//
// # Privacy
//
// Metrics contain no key ids, no object names and no error texts. Spans contain key ids.
// Only with [WithObjectNames] do they contain the names of buckets and objects.
//
// # Buckets
//
// Package gocloud.dev/blob has metrics and spans of its own, for the encrypting
// bucket and for the store's. METRICS.md describes them. If the context of a key
// operation holds such a span, the key operation adds its mode, its key id and, if
// you asked for them, its names.
//
// # Cost
//
// Metrics add 2 % to the encryption of 64 KiB in SSE-S3, and 5 % to that of 1 KiB.
// Without a provider, they add nothing that can be measured. A span that is
// sampled adds about 3 µs. Measure it on your machine: BenchmarkCost.
package sseotel
