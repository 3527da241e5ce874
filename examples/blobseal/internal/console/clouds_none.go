//go:build noclouds

package console

// Clouds is empty: this build has no clients of vendors' key services.
type Clouds struct{}

func newClouds() Clouds { return Clouds{} }
