package sseotel_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// Wrap the cipher and observe the ring. A service gives the provider a reader that
// exports, such as that of Prometheus; this one is read by hand.
func ExampleNew() {
	ctx := context.Background()
	reader := sdkmetric.NewManualReader()
	tel, err := sseotel.New(sseotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	if err != nil {
		log.Fatal(err)
	}
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0xb5}, 32)) // in production: a secret
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, &keyring.Options{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	defer tel.ObserveRing("photos", ring)()
	cipher := tel.Cipher(sse.NewManaged(ring))

	w, err := sse.NewWriter(ctx, io.Discard, cipher, sse.Object{Bucket: "photos", Key: "cat.jpg"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := w.Write([]byte("meow")); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	var data metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &data); err != nil {
		log.Fatal(err)
	}
	for _, m := range data.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Histogram[float64]:
			fmt.Println(m.Name, "count", d.DataPoints[0].Count)
		case metricdata.Sum[int64]:
			if m.Name == "blobseal.plaintext.io" || m.Name == "blobseal.objects" {
				fmt.Println(m.Name, d.DataPoints[0].Value)
			}
		}
	}
	// Output:
	// blobseal.key.operation.duration count 1
	// blobseal.plaintext.io 4
	// blobseal.objects 1
}
