package s3clients

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/xattr"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
)

// secrets is what must not be in anything that a gateway writes.
type secrets struct {
	marker string // of every plaintext
	forms  []form
}

// form is a form of a secret that a search finds.
type form struct {
	what string
	text []byte
}

func newSecrets() *secrets {
	s := &secrets{marker: rand.Text()}
	s.add("plaintext", []byte(s.marker))
	return s
}

// plaintext returns content of which any 64 bytes hold the marker.
func (s *secrets) plaintext(size int) []byte {
	var content bytes.Buffer
	for salt := make([]byte, 8); content.Len() < size; {
		rand.Read(salt)
		content.WriteString(s.marker)
		content.Write(salt)
	}
	return content.Bytes()[:size]
}

// addCustomer adds a customer's key and its MD5.
func (s *secrets) addCustomer(key []byte) {
	sum := md5.Sum(key)
	s.add("customer's key", key)
	s.add("MD5 of a customer's key", sum[:])
}

// add adds a secret as it is, in hexadecimal digits and in base64. Base64 of a longer
// text that holds the secret has one of three forms, which depend on where it begins.
func (s *secrets) add(what string, secret []byte) {
	s.forms = append(s.forms,
		form{what, secret},
		form{what + ", in hexadecimal", []byte(hex.EncodeToString(secret))},
		form{what + ", in hexadecimal", []byte(strings.ToUpper(hex.EncodeToString(secret)))})
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			whole := (before + len(secret)) / 3 * 3 // the last digits depend on what follows
			text := encoding.EncodeToString(append(make([]byte, before), secret...)[:whole])
			s.forms = append(s.forms, form{what + ", in base64", []byte(text[(before*8+5)/6:])})
		}
	}
}

// headers are names of SSE-C headers and of their fields in the SDKs, in lower case.
var headers = []string{"server-side-encryption-customer", "server_side_encryption_customer", "ssecustomer"}

// find returns the first secret in text, or "".
func (s *secrets) find(text []byte) string {
	for _, f := range s.forms {
		if bytes.Contains(text, f.text) {
			return f.what
		}
	}
	return ""
}

// findHeader returns the first name of an SSE-C header in text, or "".
func findHeader(text []byte) string {
	text = bytes.Clone(text)
	for i, c := range text { // bytes.ToLower takes ciphertext for runes, and its time
		if 'A' <= c && c <= 'Z' {
			text[i] = c + 'a' - 'A'
		}
	}
	for _, name := range headers {
		if bytes.Contains(text, []byte(name)) {
			return "header " + name
		}
	}
	return ""
}

// search looks for secrets in everything below a directory: contents and names of
// files, and their extended attributes. It returns where it found which, and how many
// bytes it searched.
func (s *secrets) search(dir string) (found []string, size int64, err error) {
	look := func(where string, text []byte) {
		size += int64(len(text))
		for _, what := range []string{s.find(text), findHeader(text)} {
			if what != "" {
				found = append(found, fmt.Sprintf("%s: %s", where, what))
			}
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		look("name of "+path, []byte(d.Name()))
		names, err := xattr.LList(path)
		if err != nil {
			return err
		}
		for _, name := range names {
			value, err := xattr.LGet(path, name)
			if err != nil {
				return err
			}
			look(fmt.Sprintf("attribute %s of %s", name, path), append([]byte(name+"="), value...))
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		look(path, content)
		return nil
	})
	return found, size, err
}

// TestSearchFinds plants each form of each secret in each place of a store.
func TestSearchFinds(t *testing.T) {
	s := newSecrets()
	customer := newCustomer()
	s.addCustomer(customer)
	sum := md5.Sum(customer)
	content := s.plaintext(200)
	texts := map[string][]byte{
		"plaintext":               content[70:140],
		"plaintext in base64":     []byte(base64.StdEncoding.EncodeToString(content[1:100])),
		"key":                     customer,
		"key in base64":           []byte(base64.StdEncoding.EncodeToString(customer)),
		"key in base64 of a text": []byte(base64.StdEncoding.EncodeToString([]byte("key: " + string(customer) + "."))),
		"key in hexadecimal":      fmt.Appendf(nil, "%x", customer),
		"MD5":                     sum[:],
		"MD5 in base64":           []byte(base64.StdEncoding.EncodeToString(sum[:])),
		"MD5 in hexadecimal":      fmt.Appendf(nil, "%X", sum),
		"header":                  []byte("x-amz-server-side-encryption-customer-algorithm: AES256"),
		"copy header":             []byte("X-Amz-Copy-Source-Server-Side-Encryption-Customer-Key-MD5"),
		"field":                   []byte(`{"SSECustomerAlgorithm":"AES256"}`),
	}
	places := map[string]func(dir string, text []byte) error{
		"log": func(dir string, text []byte) error {
			before := []byte(strings.Repeat("time=now level=INFO msg=\"request failed\"\n", 5000))
			return os.WriteFile(filepath.Join(dir, "gateway.log"), append(append(before, text...), before...), 0o600)
		},
		"attribute": func(dir string, text []byte) error {
			file := filepath.Join(dir, "object")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			return xattr.LSet(file, "user.etag", text)
		},
		"attribute of a directory": func(dir string, text []byte) error {
			return xattr.LSet(dir, "user.acl", text)
		},
		"name": func(dir string, text []byte) error {
			if bytes.ContainsAny(text, "/\x00") {
				return errUnnameable
			}
			return os.Mkdir(filepath.Join(dir, string(text)), 0o700)
		},
	}
	for what, text := range texts {
		for where, plant := range places {
			t.Run(what+"/"+where, func(t *testing.T) {
				dir := t.TempDir()
				if err := plant(dir, text); err == errUnnameable {
					return
				} else {
					require.NoError(t, err)
				}
				found, _, err := s.search(dir)
				require.NoError(t, err)
				require.NotEmpty(t, found)
			})
		}
	}
	t.Run("nothing", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "log"), []byte("x-amz-server-side-encryption: AES256"), 0o600))
		found, size, err := s.search(dir)
		require.NoError(t, err)
		require.Empty(t, found)
		require.Positive(t, size)
	})
}

var errUnnameable = fmt.Errorf("no file has such a name")

// TestSearchFindsWhatABareServerKeeps has another S3 server, which does not encrypt,
// keep an object: the search finds the plaintext in its files, and the headers of a
// customer's key in its log.
func TestSearchFindsWhatABareServerKeeps(t *testing.T) {
	b := &bed{dir: t.TempDir(), user: innerUser, secret: innerUser + "-secret", http: &http.Client{Timeout: await.Longest}}
	var stop func()
	b.url, stop = startInner(t, b)
	s := newSecrets()
	m := mode{Name: "SSE-C", Customer: newCustomer()}
	require.Equal(t, http.StatusOK, b.send(t, http.MethodPut, "/"+bucket, "", nil).StatusCode)
	put := b.send(t, http.MethodPut, "/"+bucket+"/key", string(s.plaintext(100_000)), m.writeHeaders())
	require.Equal(t, http.StatusOK, put.StatusCode, "%s", put.body)
	stop()
	found, _, err := s.search(b.dir)
	require.NoError(t, err)
	require.Contains(t, found, b.path("inner/"+bucket+"/key")+": plaintext")
	require.Contains(t, found, b.path("inner.log")+": header server-side-encryption-customer")
}
