package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"

	"github.com/blobseal/blobseal/blob/s3gateway"
)

// readOrMake returns the content of a file in the directory. If there is none, it
// writes what fill returns. Of several processes that do so, all get what one wrote.
func readOrMake(c config, name string, fill func() ([]byte, error)) ([]byte, error) {
	content, err := os.ReadFile(c.path(name))
	if !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	if content, err = fill(); err != nil {
		return nil, err
	}
	made, err := os.CreateTemp(c.dir, name+".*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(made.Name())
	_, err = made.Write(content)
	if err := errors.Join(err, made.Sync(), made.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(made.Name(), c.path(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(c.path(name))
}

// account is the first user, who may do everything.
type account struct {
	Access, Secret string
	isNew          bool // made by this process
}

func adminOf(c config) (a account, err error) {
	var made account
	text, err := readOrMake(c, "admin.json", func() ([]byte, error) {
		secret := make([]byte, 25)
		rand.Read(secret)
		made = account{Access: "admin", Secret: base32.StdEncoding.EncodeToString(secret)}
		return json.Marshal(made)
	})
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%s: %w (restore it from your backup, or remove it to get a new first user)", c.path("admin.json"), err)
	}
	if a.Access == "" || a.Secret == "" {
		return a, fmt.Errorf("%s: Access or Secret is empty (restore it from your backup, or remove it to get a new first user)", c.path("admin.json"))
	}
	a.isNew = a == made
	return a, nil
}

// certificate makes a self-signed certificate for the local machine, if there is
// none. Put tls.crt and tls.key of your own there to serve others.
func certificate(c config) error {
	private, err := readOrMake(c, "tls.key", func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	})
	if err != nil {
		return err
	}
	_, err = readOrMake(c, "tls.crt", func() ([]byte, error) { return selfSign(private) })
	return err
}

func selfSign(private []byte) ([]byte, error) {
	block, _ := pem.Decode(private)
	if block == nil {
		return nil, errors.New("tls.key holds no PEM block (remove it to get a new one)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("tls.key is not of a kind that this program makes (bring tls.crt, too)")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "blobseal gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// storeOf opens the inner store.
func storeOf(ctx context.Context, c config) (backend.Backend, error) {
	if c.inner == "" {
		return s3gateway.OpenFiles(c.path("objects"), &posix.PosixOpts{VersioningDir: c.path("versions")})
	}
	if u, err := url.Parse(c.inner); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("--inner: want the address of an S3 server, such as https://s3.internal:9000; its keys are in INNER_ACCESS_KEY_ID and INNER_SECRET_ACCESS_KEY")
	}
	access, secret := os.Getenv("INNER_ACCESS_KEY_ID"), os.Getenv("INNER_SECRET_ACCESS_KEY")
	if access == "" || secret == "" {
		return nil, errors.New("--inner needs INNER_ACCESS_KEY_ID and INNER_SECRET_ACCESS_KEY in the environment")
	}
	store, err := s3gateway.OpenS3(ctx, s3.New(s3.Options{
		BaseEndpoint: &c.inner, UsePathStyle: true, Region: cmp.Or(os.Getenv("INNER_REGION"), "us-east-1"),
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	}), "")
	if err != nil {
		return nil, fmt.Errorf("--inner %s: %w", c.inner, err)
	}
	return store, nil
}
