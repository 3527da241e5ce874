package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlantedObject: mallory can write to the files and has a key of the same service.
// No command opens what she plants, unless a flag accepts her key.
func TestPlantedObject(t *testing.T) {
	album(t, photos, "good")
	ok(t, args("kms", "create-key", service, "--alias", "alias/mallory")...)
	mallory := args(service, "--kms-key", "alias/mallory")
	put(t, mallory, "planted", "forged")
	id, arn := keyOf(t, "alias/mallory").ID, keyOf(t, "alias/mallory").ARN
	planted := read(t, "photos/planted")
	none := "sealed under key " + arn + ", which no flag accepts (if you trust that key, give --kms-key " + id + "; --any-kms-key accepts every key of the service)"
	other := "sealed under key " + arn + ", not under alias/photos (if you trust that key, give --kms-key " + id + "; --any-kms-key accepts every key of the service)"

	for _, test := range []struct {
		keys []string
		says string
	}{{service, none}, {photos, other}} {
		blobseal(args("bucket", "get", bucketURL, test.keys, "planted", "-")...).fails(t, 3, "planted: "+test.says)
		blobseal(args("bucket", "get", bucketURL, test.keys, "planted", "out")...).fails(t, 3, "planted: "+test.says)
		require.NoFileExists(t, "out")
		blobseal(args("decrypt", test.keys, "--object", "photos/planted", "photos/planted", "-")...).fails(t, 3, "photos/planted: "+test.says)
		blobseal(args("rewrap", test.keys, "--object", "photos/planted", "--to-customer-key-file", "my.key", "photos/planted")...).fails(t, 3, "photos/planted: "+test.says)
		res := blobseal(args("verify", test.keys, "--object", "photos/planted", "photos/planted")...)
		res.fails(t, 3, "1 of 1 files")
		require.Equal(t, "photos/planted: FAILED: "+test.says+"\n", res.out)
		for _, depth := range []string{"envelopes", "lengths", "bodies"} {
			res = blobseal(args("bucket", "check", bucketURL, test.keys, "--depth", depth)...)
			res.fails(t, 3, " of 2 objects cannot be read")
			require.Contains(t, res.out, "planted: WRONG KEY: "+test.says+"\n")
		}
	}

	t.Run("rewrap", func(t *testing.T) {
		for _, target := range [][]string{{"--to-kms-key", "alias/photos"}, toCustomer} {
			res := blobseal(args("bucket", "rewrap", bucketURL, service, target, "--dry-run")...)
			res.fails(t, 3, "failed without being changed")
			require.Contains(t, res.out, "planted: FAILED: "+none+"\n")
		}
		blobseal(args("bucket", "rewrap", bucketURL, service, "--to-kms-key", "alias/photos")...).fails(t, 3, "1 object failed without being changed")
		require.Contains(t, ok(t, args("bucket", "rewrap", bucketURL, photos, "--to-kms-key", "alias/photos", "--force")...), "1 object rewrapped")
		require.Equal(t, planted, read(t, "photos/planted"))
	})
	t.Run("serve", func(t *testing.T) {
		blobseal(args("bucket", "serve", bucketURL, service, "--secret-file", "my.key")...).fails(t, 2, "--kms: give --kms-key with it, which objects must be under, or --any-kms-key")
		s := serve(t, photos...)
		status, body := send(t, http.MethodGet, s.sign(t, "good"), nil)
		require.Equal(t, 200, status)
		require.Equal(t, "picture of good", body)
		status, body = send(t, http.MethodGet, s.sign(t, "planted"), nil)
		require.NotEqual(t, 200, status)
		require.NotContains(t, body, "forged")
		s.ends(t)
		require.Contains(t, s.log.String(), other)
	})
	t.Run("accepted", func(t *testing.T) {
		for _, keys := range [][]string{mallory, args(photos, "--kms-key", id), anyKey} {
			require.Equal(t, "forged", get(t, keys, "planted"))
		}
		require.Contains(t, ok(t, args("bucket", "check", bucketURL, photos, "--kms-key", "alias/mallory")...), "2 objects, 2 ")
		require.Contains(t, ok(t, args("bucket", "rewrap", bucketURL, anyKey, "--to-kms-key", "alias/photos")...), "1 object rewrapped")
		require.Equal(t, "forged", get(t, photos, "planted"))
	})
}
