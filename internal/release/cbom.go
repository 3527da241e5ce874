package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// An asset is a cryptographic algorithm that blobseal uses.
type asset struct {
	name      string
	use       string
	primitive cdx.CryptoPrimitive
	parameter string
	mode      cdx.CryptoAlgorithmMode
	functions []cdx.CryptoFunction
	classical int // bits of security against classical computers
	quantum   int // NIST's level; 0 if a quantum computer breaks the algorithm
	oid       string
}

// The algorithms that modules of blobseal run. Algorithms that a key service runs,
// and those of TLS, are the business of their bills of materials.
var (
	aesGCM = asset{"AES-256-GCM", "encrypts chunks of objects, sealed data keys and documents, as c2sp.org/chunked-encryption prescribes (Cobblestone-256)",
		cdx.CryptoPrimitiveAE, "256", cdx.CryptoAlgorithmModeGCM, []cdx.CryptoFunction{cdx.CryptoFunctionEncrypt, cdx.CryptoFunctionDecrypt}, 256, 5, "2.16.840.1.101.3.4.1.46"}
	hkdfSHA512 = asset{"HKDF-SHA-512", "derives key, nonce and commitment of each message (Expand)",
		cdx.CryptoPrimitiveKDF, "512", "", []cdx.CryptoFunction{cdx.CryptoFunctionKeyderive}, 256, 5, ""}
	hkdfSHA256 = asset{"HKDF-SHA-256", "derives the key-encryption keys of a ring's versions (Tink PRF)",
		cdx.CryptoPrimitiveKDF, "256", "", []cdx.CryptoFunction{cdx.CryptoFunctionKeyderive}, 256, 5, ""}
	sha512Hash = asset{"SHA-512", "the hash of HKDF-SHA-512",
		cdx.CryptoPrimitiveHash, "512", "", []cdx.CryptoFunction{cdx.CryptoFunctionDigest}, 256, 5, "2.16.840.1.101.3.4.2.3"}
	sha256Hash = asset{"SHA-256", "checksums of documents, the hash chain of audit trails, names of files",
		cdx.CryptoPrimitiveHash, "256", "", []cdx.CryptoFunction{cdx.CryptoFunctionDigest}, 128, 2, "2.16.840.1.101.3.4.2.1"}
	hmacSHA256 = asset{"HMAC-SHA-256", "signs URLs",
		cdx.CryptoPrimitiveMAC, "256", "", []cdx.CryptoFunction{cdx.CryptoFunctionTag}, 256, 5, "1.2.840.113549.2.9"}
	ed25519Sign = asset{"Ed25519", "signs checkpoints of audit trails",
		cdx.CryptoPrimitiveSignature, "Ed25519", "", []cdx.CryptoFunction{cdx.CryptoFunctionKeygen, cdx.CryptoFunctionSign, cdx.CryptoFunctionVerify}, 128, 0, "1.3.101.112"}
	argon2id = asset{"Argon2id", "derives the key of a root from a passphrase",
		cdx.CryptoPrimitiveKDF, "", "", []cdx.CryptoFunction{cdx.CryptoFunctionKeyderive}, 256, 5, ""}
	md5Hash = asset{"MD5", "checksums that S3's protocol asks for (Content-MD5, SSE-C key MD5); no security rests on it",
		cdx.CryptoPrimitiveHash, "128", "", []cdx.CryptoFunction{cdx.CryptoFunctionDigest}, 0, 0, "1.2.840.113549.2.5"}
	sha1Hash = asset{"SHA-1", "checksums that S3's protocol offers; no security rests on it",
		cdx.CryptoPrimitiveHash, "160", "", []cdx.CryptoFunction{cdx.CryptoFunctionDigest}, 0, 0, "1.3.14.3.2.26"}
	drbg = asset{"crypto/rand", "random keys, salts and ids, from the operating system",
		cdx.CryptoPrimitiveDRBG, "", "", []cdx.CryptoFunction{cdx.CryptoFunctionGenerate}, 256, 5, ""}
)

// cryptoImports says which assets an import brings. Every cryptographic import of a
// library or the command line is here; those without assets offer types, encodings or comparison.
var cryptoImports = map[string][]asset{
	"crypto":                         nil,
	"crypto/aes":                     {aesGCM},
	"crypto/cipher":                  {aesGCM},
	"crypto/ed25519":                 {ed25519Sign},
	"crypto/fips140":                 nil,
	"crypto/hkdf":                    {hkdfSHA512},
	"crypto/hmac":                    {hmacSHA256},
	"crypto/md5":                     {md5Hash},
	"crypto/rand":                    {drbg},
	"crypto/sha1":                    {sha1Hash},
	"crypto/sha256":                  {sha256Hash},
	"crypto/sha512":                  {sha512Hash, hkdfSHA512},
	"crypto/subtle":                  nil,
	"crypto/tls":                     nil,
	"crypto/x509":                    nil,
	"crypto/x509/pkix":               nil,
	"golang.org/x/mod/sumdb/note":    {ed25519Sign},
	"golang.org/x/crypto/argon2":     {argon2id},
	"golang.org/x/crypto/cryptobyte": nil,
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset": nil,
	"github.com/tink-crypto/tink-go/v2/keyset":                  nil,
	"github.com/tink-crypto/tink-go/v2/prf":                     {hkdfSHA256},
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf":             {hkdfSHA256},
	"github.com/tink-crypto/tink-go/v2/proto/tink_go_proto":     nil,
	"github.com/tink-crypto/tink-go/v2/tink":                    nil,
}

// isCryptoImport reports whether an import must be in cryptoImports.
func isCryptoImport(path string) bool {
	for _, prefix := range []string{"crypto", "golang.org/x/crypto", "golang.org/x/mod/sumdb", "github.com/tink-crypto/tink-go/v2", "filippo.io", "github.com/cloudflare/circl"} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return true
		}
	}
	return false
}

// findAssets returns the packages that use each asset, by the asset's name. It looks at
// libraries and the command line.
func (p *proof) findAssets(ctx context.Context) (map[string][]string, error) {
	users := map[string][]string{}
	for _, m := range p.modules {
		if m.isExample() {
			continue
		}
		list, err := runner{dir: filepath.Join(p.tree, m.folder), env: p.env}.output(ctx, "go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(list) {
			fields := strings.Fields(line)
			if strings.HasPrefix(fields[0], rootModule+"/internal/testbed/") {
				continue // only tests import it
			}
			for _, imported := range fields[1:] {
				assets, known := cryptoImports[imported]
				if !known && isCryptoImport(imported) {
					return nil, fmt.Errorf("%s imports %s, of which the bill of cryptographic materials knows nothing (add it to cryptoImports)", fields[0], imported)
				}
				for _, a := range assets {
					if !slices.Contains(users[a.name], fields[0]) {
						users[a.name] = append(users[a.name], fields[0])
					}
				}
			}
		}
	}
	return users, nil
}

// newCBOM returns the bill of cryptographic materials. Each asset names the packages
// that use it.
func newCBOM(version string, users map[string][]string) *cdx.BOM {
	main := &cdx.Component{
		BOMRef: "pkg:golang/" + rootModule + "@" + version, Type: cdx.ComponentTypeLibrary, Name: rootModule, Version: version,
		PackageURL: "pkg:golang/" + rootModule + "@" + version,
	}
	all := map[string]asset{}
	for _, assets := range cryptoImports {
		for _, a := range assets {
			all[a.name] = a
		}
	}
	var components []cdx.Component
	var refs []string
	for _, name := range slices.Sorted(maps.Keys(users)) {
		c := all[name].component(users[name])
		components = append(components, c)
		refs = append(refs, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.SpecVersion, bom.JSONSchema = cdx.SpecVersion1_6, "http://cyclonedx.org/schema/bom-1.6.schema.json" // as the other bills
	bom.Metadata = &cdx.Metadata{Timestamp: time.Now().UTC().Format(time.RFC3339), Component: main}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	return bom
}

func (a asset) component(users []string) cdx.Component {
	var occurrences []cdx.EvidenceOccurrence
	for _, pkg := range users {
		occurrences = append(occurrences, cdx.EvidenceOccurrence{Location: pkg})
	}
	return cdx.Component{
		BOMRef:      "crypto/algorithm/" + strings.ToLower(strings.ReplaceAll(a.name, "/", "-")),
		Type:        cdx.ComponentTypeCryptographicAsset,
		Name:        a.name,
		Description: a.use,
		Evidence:    &cdx.Evidence{Occurrences: &occurrences},
		CryptoProperties: &cdx.CryptoProperties{
			AssetType: cdx.CryptoAssetTypeAlgorithm,
			AlgorithmProperties: &cdx.CryptoAlgorithmProperties{
				Primitive: a.primitive, ParameterSetIdentifier: a.parameter, Mode: a.mode, CryptoFunctions: &a.functions,
				ExecutionEnvironment:   cdx.CryptoExecutionEnvironmentSoftwarePlainRAM,
				ClassicalSecurityLevel: &a.classical, NistQuantumSecurityLevel: &a.quantum,
			},
			OID: a.oid,
		},
	}
}

func writeBOM(name string, bom *cdx.BOM) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	// EncodeVersion of cyclonedx-go v0.12.0 makes applications of cryptographic assets.
	if err := cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
