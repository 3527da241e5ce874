package kms_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// Put the authenticated user into the ctx of each request. A request without a user
// has the zero Principal, which key policies should deny.
func ExampleWithPrincipal() {
	service := kmstest.NewFake("photos-key") // stands in for a real key service
	service.Deny(kms.Principal{})            // requests without a user
	service.Deny(kms.Principal{ID: "bob", Type: "User"})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if user, _, ok := r.BasicAuth(); ok { // and the password is right
			ctx = kms.WithPrincipal(ctx, kms.Principal{ID: user, Type: "User"})
		}
		_, err := service.GenerateDataKey(ctx, "photos-key", nil) // as sse.KMS does
		if errors.Is(err, kms.ErrDenied) {
			w.WriteHeader(http.StatusForbidden)
		}
	})

	for _, user := range []string{"alice", "bob", ""} {
		r := httptest.NewRequest(http.MethodPut, "/cat.jpg", nil)
		if user != "" {
			r.SetBasicAuth(user, "secret")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%q: %d\n", user, w.Code)
	}
	// Output:
	// "alice": 200
	// "bob": 403
	// "": 403
}
