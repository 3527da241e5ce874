package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// A root in a key service has a URL: the scheme names the service, and the rest the key,
// in the service's own words. The vendors' schemes are those of Go CDK
// (gocloud.dev/secrets). Address and credentials come from where the vendor's own tools
// take them, usually the environment.
const (
	awsScheme    = "awskms"
	googleScheme = "gcpkms"
	azureScheme  = "azurekeyvault"
	vaultScheme  = "hashivault"
	localScheme  = "localkms"
)

const rootSchemes = "awskms://, gcpkms://, azurekeyvault://, hashivault:// or localkms://"

// rootURL is the URL of a root in a key service.
type rootURL struct {
	scheme string
	key    string            // what follows the scheme; for localkms the directory
	params map[string]string // by name; only those that were given
}

// rootShape describes the URLs of a scheme: their form in words, a pattern for the key,
// and the parameters.
func rootShape(scheme string) (form, pattern string, params []string) {
	switch scheme {
	case awsScheme:
		return "awskms:///KEY, where KEY is an id, an ARN, an alias/NAME or an alias' ARN", `.+`, []string{"region", "profile"}
	case googleScheme:
		return "gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/KEY", `projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+`, nil
	case azureScheme:
		return "azurekeyvault://NAME.vault.azure.net/keys/KEY", `[0-9A-Za-z.-]+(:[0-9]+)?/keys/[0-9A-Za-z-]+(/[0-9A-Za-z]+)?`, []string{"algorithm"}
	case vaultScheme:
		return "hashivault://KEY, or hashivault://MOUNT/keys/KEY", `([^?#]+/keys/)?[\w.-]+`, nil
	case localScheme:
		return "localkms://DIR?key=KEY", `.+`, []string{"key"}
	}
	return "", "", nil
}

// parseRootURL parses the URL of a flag, without asking the service.
func parseRootURL(flag, text string) (*rootURL, error) {
	scheme, rest, found := strings.Cut(text, "://") // url.Parse would take part of an ARN for a bad port
	if !found {
		return nil, message.Usagef("%s %q: want a URL: %s", flag, text, rootSchemes)
	}
	form, pattern, params := rootShape(scheme)
	if form == "" {
		return nil, message.Usagef("%s: %s:// is unknown; want %s", flag, scheme, rootSchemes)
	}
	rest, query, _ := strings.Cut(rest, "?")
	key, err := url.PathUnescape(rest)
	if scheme == awsScheme {
		key = strings.TrimPrefix(key, "/")
	}
	if err != nil || !regexp.MustCompile(`^`+pattern+`$`).MatchString(key) {
		return nil, message.Usagef("%s %q: want %s", flag, text, form)
	}
	u := &rootURL{scheme: scheme, key: key, params: map[string]string{}}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, message.Usagef("%s %q: %v", flag, text, err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(params, name) {
			return nil, message.Usagef("%s: %s:// has no parameter %q", flag, scheme, name)
		}
		if len(values[name]) > 1 || values[name][0] == "" {
			return nil, message.Usagef("%s: parameter %q: give one value", flag, name)
		}
		u.params[name] = values[name][0]
	}
	return u, nil
}

// String returns the URL without its parameters, for messages.
func (u *rootURL) String() string {
	if u.scheme == awsScheme {
		return u.scheme + ":///" + u.key
	}
	return u.scheme + "://" + u.key
}

// openRootKey returns a root that is a key of a key service. It does not ask the service
// yet.
func openRootKey(ctx context.Context, c *console.Console, source RootSource) (tink.AEADWithContext, error) {
	u, err := parseRootURL(source.kmsFlag(), source.KMSKey)
	if err != nil {
		return nil, err
	}
	var client kms.Client
	var keyID string
	if u.scheme == localScheme {
		if kms.PrincipalFrom(ctx) == (kms.Principal{}) {
			ctx = AsPrincipal(ctx, "")
		}
		client, keyID, err = localKey(ctx, c, u, source.own())
	} else {
		client, keyID, err = cloudKey(ctx, c, u)
	}
	var root tink.AEADWithContext
	if err == nil {
		root, err = keyring.NewKMSRoot(client, keyID, &keyring.KMSRootOptions{Principal: kms.PrincipalFrom(ctx)})
	}
	if err != nil && !message.InWords(err) {
		err = message.Problemf(err, u.String(), "%s", message.Vendor(err))
	}
	return root, err
}

// localKey returns the client and the name of a key of a key service in a directory.
func localKey(ctx context.Context, c *console.Console, u *rootURL, root RootSource) (kms.Client, string, error) {
	s, err := OpenService(ctx, c, u.key, root)
	if err != nil {
		return nil, "", err
	}
	c.AtEnd(s.Close)
	keyID := u.params["key"]
	if keyID == "" {
		keyID = localkms.DefaultAlias
	}
	client := &rootKey{client: s.uses, says: func(op kms.Operation, err error) string {
		return s.Dir + ": " + s.Says(op, keyID, err)
	}}
	return client, keyID, nil
}

// remote returns a client that puts a vendor's errors into words. Hint says why the
// vendor may refuse.
func remote(c *console.Console, u *rootURL, client kms.Client, hint string) kms.Client {
	return &rootKey{client: client, wait: c.RootWait, says: func(_ kms.Operation, err error) string {
		text := fmt.Sprintf("%s: %s", u, message.Service(err))
		if hint != "" && errors.Is(err, kms.ErrDenied) {
			text += "; " + hint
		}
		return text
	}}
}

// rootKey is the client of a root. It bounds the wait, and puts errors into words.
type rootKey struct {
	client kms.Client
	wait   time.Duration // 0 for no limit
	says   func(kms.Operation, error) string
}

// GenerateDataKey implements [kms.Client].
func (k *rootKey) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	bounded, cancel := k.bound(ctx)
	defer cancel()
	key, err := k.client.GenerateDataKey(bounded, keyID, ec)
	return key, k.failed(ctx, kms.OpGenerateDataKey, err)
}

// Decrypt implements [kms.Client].
func (k *rootKey) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	bounded, cancel := k.bound(ctx)
	defer cancel()
	plaintext, err := k.client.Decrypt(bounded, keyID, ciphertext, ec)
	return plaintext, k.failed(ctx, kms.OpDecrypt, err)
}

func (k *rootKey) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if k.wait == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, k.wait)
}

func (k *rootKey) failed(ctx context.Context, op kms.Operation, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) { // of wait
		err = &message.Refusal{Text: fmt.Sprintf("no answer within %v", k.wait), Err: kms.ErrUnavailable}
	}
	return &message.Refusal{Text: k.says(op, err), Err: err}
}
