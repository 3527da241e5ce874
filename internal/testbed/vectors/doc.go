// Package vectors tests package chunked with the official vectors of its
// construction, which are a Go module. That module requires a patch level of Go;
// this one keeps the requirement away from everybody who imports the library.
package vectors
