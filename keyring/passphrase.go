package keyring

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/secret"
)

// PassphraseParams are Argon2id's costs. A zero field means its default; nil
// means all three defaults, which are the second recommendation of RFC 9106, section 4.
//
// The root encrypts with these costs. They also bound what it spends on a stored document,
// because anyone who can write to the store can choose the costs in it. So if you create a
// ring with higher costs than the defaults, open it with the same params.
//
// Costs outside the bounds below are [ErrInvalid]. (The first recommendation of the RFC,
// 2 GiB of memory, is outside.)
type PassphraseParams struct {
	Time    uint32 // passes, 2 to 16; default 3
	Memory  uint32 // KiB, 19 MiB to 1 GiB; default 64 MiB
	Threads uint8  // 1 to 16; default 4
}

const (
	minTime, maxTime, defaultTime       = 2, 16, 3
	minMemory, maxMemory, defaultMemory = 19 << 10, 1 << 20, 64 << 10 // KiB
	maxThreads, defaultThreads          = 16, 4
)

// The ciphertext of a passphrase root begins with a header, big-endian:
//
//	kdf      uint8    1, Argon2id version 0x13
//	time     uint32   passes
//	memory   uint32   KiB
//	threads  uint8
//	salt     [16]byte
//
// The rest is one Cobblestone-256 message. Its key is Argon2id's output of 32
// bytes, its context passphraseLabel, the header and the associated data.
const (
	passphraseLabel      = "github.com/blobseal/blobseal/v1 passphrase root\x00"
	kdfArgon2id          = 1
	passphraseSaltSize   = 16
	passphraseHeaderSize = 1 + 4 + 4 + 1 + passphraseSaltSize
	derivedKeysKept      = 4
	minPassphrase        = 12 // bytes of a new root
)

// passphraseHeader is comparable: it names a derived key.
type passphraseHeader struct {
	params PassphraseParams
	salt   [passphraseSaltSize]byte
}

type passphraseRoot struct {
	passphrase func() []byte // behind a closure, so that nothing prints it
	params     PassphraseParams

	turn    chan struct{} // held while using derived, and while deriving: each takes its memory
	derived []derivedKey  // keys that sealed or opened a message, the latest first
}

type derivedKey struct {
	passphraseHeader
	key secret.Key
}

// NewPassphraseRoot returns a root that derives its key from a passphrase, by
// Argon2id. It copies the passphrase. Anyone who sees the document can try passphrases on
// it without limit, so [Create] and [Ring.ChangeRoot] require at least 12 bytes. If you can
// keep a key safe, use [NewKeyRoot] instead. An empty passphrase and params out of bounds
// are [ErrInvalid]. [ParsePassphrase] reads a passphrase from a file.
//
// The ciphertext carries the costs and the salt. A wrong passphrase, wrong
// associated data and costs above params are [ErrRoot]; a message edited after its head is
// [ErrDamaged]. Deriving a key takes tens of milliseconds and the memory of params; ctx
// does not interrupt it. The root keeps its latest keys, so it derives one key for a ring.
// The root is safe for concurrent use and does not print its passphrase.
func NewPassphraseRoot(passphrase []byte, params *PassphraseParams) (Root, error) {
	if len(passphrase) == 0 {
		return nil, invalid("empty passphrase")
	}
	var p PassphraseParams
	if params != nil {
		p = *params
	}
	p.Time = cmp.Or(p.Time, defaultTime)
	p.Memory = cmp.Or(p.Memory, defaultMemory)
	p.Threads = cmp.Or(p.Threads, defaultThreads)
	if err := p.check(); err != nil {
		return nil, invalid("%v", err)
	}
	own := bytes.Clone(passphrase)
	return &passphraseRoot{
		passphrase: func() []byte { return own },
		params:     p,
		turn:       make(chan struct{}, 1),
	}, nil
}

func (p PassphraseParams) check() error {
	switch {
	case p.Time < minTime || p.Time > maxTime:
		return fmt.Errorf("argon2id time of %d, want %d to %d", p.Time, minTime, maxTime)
	case p.Memory < minMemory || p.Memory > maxMemory:
		return fmt.Errorf("argon2id memory of %d KiB, want %d to %d", p.Memory, minMemory, maxMemory)
	case p.Threads < 1 || p.Threads > maxThreads:
		return fmt.Errorf("argon2id threads of %d, want 1 to %d", p.Threads, maxThreads)
	}
	return nil
}

// EncryptWithContext implements [Root]. It reuses the salt of the latest kept key with the
// root's own costs, so that a ring keeps its salt. Each message has a salt of its own
// besides.
func (r *passphraseRoot) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-r.turn }()
	header := passphraseHeader{params: r.params}
	rand.Read(header.salt[:]) // never fails: it ends the program instead
	if i := slices.IndexFunc(r.derived, func(d derivedKey) bool { return d.params == r.params }); i >= 0 {
		header = r.derived[i].passphraseHeader
	}
	key, err := r.derive(header)
	if err != nil {
		return nil, err
	}
	r.keep(derivedKey{header, key})
	return sealRootMessage(key, passphraseLabel, header.marshal(), associatedData, plaintext)
}

// DecryptWithContext implements [Root].
func (r *passphraseRoot) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	header, message, err := parsePassphraseHeader(ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if err := r.checkCosts(header.params); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-r.turn }()
	key, err := r.derive(header)
	if err != nil {
		return nil, err
	}
	plaintext, err := openRootMessage(key, passphraseLabel, header.marshal(), associatedData, message)
	if err != nil {
		return nil, err
	}
	r.keep(derivedKey{header, key})
	return plaintext, nil
}

// checkCosts rejects stored costs above the root's own: anyone who can write to the store
// can choose them.
func (r *passphraseRoot) checkCosts(stored PassphraseParams) error {
	own := r.params
	if stored.Memory > own.Memory || uint64(stored.Time)*uint64(stored.Memory) > uint64(own.Time)*uint64(own.Memory) {
		return fmt.Errorf("document asks for %d passes over %d KiB, this root allows %d over %d (pass the ring's PassphraseParams)",
			stored.Time, stored.Memory, own.Time, own.Memory)
	}
	return nil
}

// enter waits for the caller's turn, which ends when the caller receives from turn.
func (r *passphraseRoot) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// derive returns the key that a header names. The caller has entered.
func (r *passphraseRoot) derive(h passphraseHeader) (secret.Key, error) {
	for _, d := range r.derived {
		if d.passphraseHeader == h {
			return d.key, nil
		}
	}
	raw := argon2.IDKey(r.passphrase(), h.salt[:], h.params.Time, h.params.Memory, h.params.Threads, secret.KeySize)
	defer clear(raw)
	key, err := secret.New(raw)
	if err != nil {
		return key, fmt.Errorf("keyring: %w", err)
	}
	return key, nil
}

// keep makes d the first of derived, and removes the oldest. The caller has entered, and has
// opened or sealed a message under d: otherwise an attacker could have chosen the salt.
func (r *passphraseRoot) keep(d derivedKey) {
	r.derived = slices.DeleteFunc(r.derived, func(old derivedKey) bool { return old.passphraseHeader == d.passphraseHeader })
	r.derived = slices.Insert(r.derived, 0, d)
	r.derived = r.derived[:min(len(r.derived), derivedKeysKept)]
}

// CheckNew implements [document.NewRootChecker].
func (r *passphraseRoot) CheckNew() error {
	if n := len(r.passphrase()); n < minPassphrase {
		return invalid("passphrase of %d bytes, want at least %d for a new root", n, minPassphrase)
	}
	return nil
}

func (h passphraseHeader) marshal() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, passphraseHeaderSize))
	b.AddUint8(kdfArgon2id)
	b.AddUint32(h.params.Time)
	b.AddUint32(h.params.Memory)
	b.AddUint8(h.params.Threads)
	b.AddBytes(h.salt[:])
	return b.BytesOrPanic()
}

// parsePassphraseHeader splits a ciphertext. Its results are within bounds.
func parsePassphraseHeader(ciphertext []byte) (h passphraseHeader, message []byte, err error) {
	s := cryptobyte.String(ciphertext)
	var kdf uint8
	if !s.ReadUint8(&kdf) || !s.ReadUint32(&h.params.Time) || !s.ReadUint32(&h.params.Memory) ||
		!s.ReadUint8(&h.params.Threads) || !s.CopyBytes(h.salt[:]) {
		return h, nil, errors.New("passphrase header is cut short")
	}
	if kdf != kdfArgon2id {
		return h, nil, fmt.Errorf("ciphertext of another kind of root (key derivation %d)", kdf)
	}
	if err := h.params.check(); err != nil {
		return h, nil, err
	}
	return h, s, nil
}
