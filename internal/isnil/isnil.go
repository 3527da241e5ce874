// Package isnil finds interfaces whose methods cannot be called.
package isnil

import "reflect"

// Any reports whether v is nil, or an interface that holds a nil pointer. Calling a
// method of either usually panics, so constructors reject both.
func Any(v any) bool {
	value := reflect.ValueOf(v)
	return !value.IsValid() || value.Kind() == reflect.Pointer && value.IsNil()
}
