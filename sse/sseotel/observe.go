package sseotel

import (
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/cache"
)

// Service is the part of a key service that [Telemetry.ObserveService] needs. A
// *localkms.Service implements it.
type Service interface{ Stats() keyring.Stats }

// ObserveRing reports the state of ring at each collection, until stop is called. name
// becomes an attribute. It must differ for each ring of a process.
func (t *Telemetry) ObserveRing(name string, ring *keyring.Ring) (stop func()) {
	if ring == nil {
		return nothing("ObserveRing", name)
	}
	own := ringKey.String(name)
	return t.observe(func(o metric.Observer) { t.instruments.ring.report(o, own, ring) })
}

// ObserveService reports how a key service of package localkms keeps up with its store, until
// stop is called. name must differ for each service of a process.
func (t *Telemetry) ObserveService(name string, service Service) (stop func()) {
	if isNil(service) {
		return nothing("ObserveService", name)
	}
	own := serviceKey.String(name)
	return t.observe(func(o metric.Observer) { t.instruments.service.report(o, own, service.Stats()) })
}

// ObserveCache reports the use of a cache, until stop is called. name must differ for each
// cache of a process.
func (t *Telemetry) ObserveCache(name string, cached *cache.Client) (stop func()) {
	if cached == nil {
		return nothing("ObserveCache", name)
	}
	own := cacheKey.String(name)
	uses := func(result string) metric.MeasurementOption { return attributes(own, resultKey.String(result)) }
	hit, stale, miss, all := uses("hit"), uses("stale"), uses("miss"), attributes(own)
	return t.observe(func(o metric.Observer) {
		stats := cached.Stats()
		o.ObserveInt64(t.instruments.cacheUses, int64(stats.Hits-stats.Stale), hit)
		o.ObserveInt64(t.instruments.cacheUses, int64(stats.Stale), stale)
		o.ObserveInt64(t.instruments.cacheUses, int64(stats.Misses), miss)
		o.ObserveInt64(t.instruments.cacheEntries, int64(stats.Entries), all)
	})
}

// nothing observes nothing, and says so.
func nothing(method, name string) func() {
	otel.Handle(fmt.Errorf("sseotel: %s(%q): nothing to observe (the argument is nil)", method, name))
	return func() {}
}

// instruments are read at each collection.
type instruments struct {
	ring    ringInstruments
	service documentInstruments

	cacheUses    metric.Int64ObservableCounter
	cacheEntries metric.Int64ObservableUpDownCounter

	jobObjects metric.Int64ObservableUpDownCounter
	jobBytes   metric.Int64ObservableUpDownCounter
	jobActive  metric.Int64ObservableUpDownCounter
	jobAge     metric.Float64ObservableGauge
}

// documentInstruments describe a process's copy of a document.
type documentInstruments struct {
	age       metric.Float64ObservableGauge
	refreshes metric.Int64ObservableCounter
	rotations metric.Int64ObservableCounter
}

type ringInstruments struct {
	documentInstruments
	primaryAge metric.Float64ObservableGauge
	period     metric.Float64ObservableGauge
	versions   metric.Int64ObservableUpDownCounter
}

// observeOthers makes the instruments of everything that is observed.
func (t *Telemetry) observeOthers(m *maker) error {
	i := &t.instruments
	i.ring.documentInstruments = m.document("blobseal.ring", "ring")
	i.ring.primaryAge = m.seconds("blobseal.ring.primary.age", "Age of the version that seals new data keys.")
	i.ring.period = m.seconds("blobseal.ring.period", "Age at which the primary is to be rotated.")
	i.ring.versions = m.level("blobseal.ring.versions", "{version}", "Versions of the master key, by state.")
	i.service = m.document("blobseal.localkms", "key service")
	i.cacheUses = m.sum("blobseal.kms.cache.uses", "{use}", "Uses of data keys that the cache answered, and calls of the key service.")
	i.cacheEntries = m.level("blobseal.kms.cache.entries", "{entry}", "Data keys in the cache.")
	i.jobObjects = m.level("blobseal.job.objects", "{object}", "Objects that the running job has visited, by outcome.")
	i.jobBytes = m.level("blobseal.job.bytes", "By", "Bytes that the running job has written.")
	i.jobActive = m.level("blobseal.job.active", "{job}", "Jobs that run.")
	i.jobAge = m.seconds("blobseal.job.progress.age", "Time since the running job has finished an object.")
	if len(m.errs) > 0 {
		return nil // some instruments may be missing
	}
	_, err := m.meter.RegisterCallback(t.collect,
		i.ring.age, i.ring.refreshes, i.ring.rotations, i.ring.primaryAge, i.ring.period, i.ring.versions,
		i.service.age, i.service.refreshes, i.service.rotations,
		i.cacheUses, i.cacheEntries, i.jobObjects, i.jobBytes, i.jobActive, i.jobAge)
	return err
}

func (m *maker) document(prefix, what string) documentInstruments {
	return documentInstruments{
		age:       m.seconds(prefix+".refresh.age", "Time since the last successful load of the "+what+"'s document began."),
		refreshes: m.sum(prefix+".refreshes", "{refresh}", "Loads of the "+what+"'s document, by outcome."),
		rotations: m.sum(prefix+".rotations", "{rotation}", "Rotations by this process, by outcome."),
	}
}

func (i *documentInstruments) report(o metric.Observer, own attribute.KeyValue, stats keyring.Stats) {
	good, bad := attributes(own, outcomeKey.String(success)), attributes(own, outcomeKey.String(failed))
	o.ObserveFloat64(i.age, max(0, time.Since(stats.Refreshed)).Seconds(), attributes(own))
	o.ObserveInt64(i.refreshes, int64(stats.Refreshes), good)
	o.ObserveInt64(i.refreshes, int64(stats.RefreshFailures), bad)
	o.ObserveInt64(i.rotations, int64(stats.Rotations), good)
	o.ObserveInt64(i.rotations, int64(stats.RotationFailures), bad)
}

func (i *ringInstruments) report(o metric.Observer, own attribute.KeyValue, ring *keyring.Ring) {
	i.documentInstruments.report(o, own, ring.Stats())
	counts := map[keyring.State]int64{keyring.Enabled: 0, keyring.Disabled: 0, keyring.Destroyed: 0}
	for _, version := range ring.Versions() {
		counts[version.State]++
		if version.Primary {
			o.ObserveFloat64(i.primaryAge, max(0, time.Since(version.Created)).Seconds(), attributes(own))
		}
	}
	for state, n := range counts {
		o.ObserveInt64(i.versions, n, attributes(own, stateKey.String(string(state))))
	}
	o.ObserveFloat64(i.period, ring.Period().Seconds(), attributes(own))
}
