// Package httpget gets what a handler serves, through a real connection.
package httpget

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
)

// Get returns what a client receives from /object, and the error that the client notices.
// byteRange is the header Range, or empty.
func Get(handler http.HandlerFunc, byteRange string) ([]byte, error) {
	server := httptest.NewServer(handler)
	defer server.Close()
	req, err := http.NewRequest(http.MethodGet, server.URL+"/object", nil)
	if err != nil {
		return nil, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}
