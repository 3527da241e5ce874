// Package clouds holds tests of encrypted buckets on emulators of Google Cloud
// Storage (fake-gcs-server) and Azure Blob Storage (Azurite).
//
// A test skips if its emulator is not installed, and says how to install it.
package clouds
