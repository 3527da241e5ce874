package awss3

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// convert copies the fields of src to those of dst that have the same name. Case does not
// count: the SDK's S3 client and its transfer manager spell the fields of one request
// differently. convert fails if src has a field set that dst lacks, unless skip has its name
// or "*". Both are pointers to structs.
func convert(dst, src any, skip ...string) error {
	to, from := reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem()
	for i := range from.NumField() {
		field := from.Type().Field(i)
		if !field.IsExported() || from.Field(i).IsZero() {
			continue
		}
		target := to.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, field.Name) })
		switch {
		case target.IsValid() && from.Field(i).CanConvert(target.Type()):
			target.Set(from.Field(i).Convert(target.Type()))
		case !slices.Contains(skip, "*") && !slices.Contains(skip, field.Name):
			return fmt.Errorf("%w: %s cannot be set for an object of more than 8 MiB", sse.ErrInvalid, field.Name)
		}
	}
	return nil
}

// clearChecksums clears the checksums in an output, a pointer to a struct. They are of
// ciphertext.
func clearChecksums(out any) {
	v := reflect.ValueOf(out).Elem()
	for i := range v.NumField() {
		if strings.HasPrefix(v.Type().Field(i).Name, "Checksum") {
			v.Field(i).SetZero()
		}
	}
}

// sealMetadata returns the metadata of an object to store, with its hint. md and encoding
// are the caller's.
func sealMetadata(hint stored.Hint, md map[string]string, encoding *string) (map[string]string, error) {
	if err := stored.CheckMetadata(md); err != nil {
		return nil, err
	}
	all := hint.Metadata(md)
	if encoding != nil && *encoding != "" {
		all[stored.ContentEncoding] = *encoding
	}
	for name, value := range all { // as Go CDK spells it in S3
		if _, caller := md[name]; !caller {
			all[name] = url.PathEscape(value)
		}
	}
	return all, nil
}

// openMetadata returns the caller's metadata and Content-Encoding, and the hint, of an
// object's stored metadata.
func openMetadata(all map[string]string, encoding *string) (md map[string]string, _ *string, hint stored.Hint, hinted bool) {
	ours := make(map[string]string, len(all))
	for name, value := range all {
		if plain, err := url.PathUnescape(value); err == nil {
			value = plain
		}
		ours[strings.ToLower(name)] = value
	}
	hint, hinted = stored.ParseHint(ours)
	if kept := ours[stored.ContentEncoding]; kept != "" {
		encoding = &kept
	}
	return stored.CallerMetadata(all), encoding, hint, hinted
}
