package cache

import (
	"fmt"
	"log/slog"
	"reflect"

	"github.com/blobseal/blobseal/kms"
)

// warnIfHidden logs a warning if the cache found no Authorizer in c, but c is a
// wrapper that embeds one. A struct that embeds a Client has the methods of Client
// alone: what it wraps can no longer be asked, and a disabled key goes on working.
func warnIfHidden(c kms.Client) {
	if hidden := hiddenAuthorizer(reflect.ValueOf(c), 0); hidden != nil {
		slog.Warn("kms: disabled keys and revoked permissions take effect only when the cache's results expire: the client hides an Authorizer (give it a method Unwrap() kms.Client)",
			slog.String("client", fmt.Sprintf("%T", c)), slog.String("authorizer", hidden.String()))
	}
}

var authorizerType = reflect.TypeFor[kms.Authorizer]()

// maxEmbedded bounds how deep hiddenAuthorizer looks.
const maxEmbedded = 16

// hiddenAuthorizer returns the type of an Authorizer that v embeds or unwraps to,
// directly or through others, or nil.
func hiddenAuthorizer(v reflect.Value, depth int) reflect.Type {
	for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && !v.IsNil() {
		if v.Type().Implements(authorizerType) {
			return v.Type()
		}
		if v.CanInterface() {
			if w, ok := v.Interface().(interface{ Unwrap() kms.Client }); ok && depth < maxEmbedded {
				if found := hiddenAuthorizer(reflect.ValueOf(w.Unwrap()), depth+1); found != nil {
					return found
				}
			}
		}
		v = v.Elem()
	}
	if !v.IsValid() || v.Kind() != reflect.Struct || depth == maxEmbedded {
		return nil
	}
	if v.Type().Implements(authorizerType) {
		return v.Type()
	}
	for i := range v.NumField() {
		if !v.Type().Field(i).Anonymous {
			continue
		}
		if found := hiddenAuthorizer(v.Field(i), depth+1); found != nil {
			return found
		}
	}
	return nil
}
