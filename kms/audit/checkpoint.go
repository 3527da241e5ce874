package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Signer signs the checkpoints of one trail.
type Signer struct {
	signer   note.Signer // which does not print its key
	verifier note.Verifier
}

// NewSigner returns the signer for a key that [note.GenerateKey] made. Its name
// should name the trail, such as "photos.example.com/audit": checkpoints of
// different trails must not be interchangeable, so give each trail a key of its
// own.
//
//	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, "photos.example.com/audit")
//
// Whoever has signerKey can forge the trail. Keep it in a file that only this
// service can read, encrypted under a root of your own. Publish verifierKey.
func NewSigner(signerKey string) (*Signer, error) {
	signerKey = strings.TrimSpace(signerKey)
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		return nil, errors.New("audit: malformed signer key (create one with note.GenerateKey)")
	}
	verifier, err := verifierOf(signer.Name(), signerKey)
	if err != nil {
		return nil, fmt.Errorf("audit: signer key: %w", err)
	}
	return &Signer{signer: signer, verifier: verifier}, nil
}

// verifierOf returns the verifier of what signerKey signs. signerKey is valid:
// PRIVATE+KEY+name+hash+key, where key is base64 of an algorithm byte and a seed.
func verifierOf(name, signerKey string) (note.Verifier, error) {
	fields := strings.SplitN(signerKey, "+", 5)
	raw, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("not an Ed25519 key")
	}
	defer clear(raw)
	public := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	verifierKey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(verifierKey)
}

// checkpoint is a statement about a trail: its first Seq entries end in Hash, and
// the next checkpoint follows after at most every records.
type checkpoint struct {
	Anchor
	every int
}

// checkpointLabel is the first line of the text that a signer signs: a fixed part and
// the version of the format.
const (
	checkpointFormat = "blobseal audit checkpoint "
	checkpointLabel  = checkpointFormat + "v1"
)

// text returns the text to sign, for the trail of this name.
func (c checkpoint) text(name string) string {
	return fmt.Sprintf("%s\n%s\n%d\n%s\nevery %d\n", checkpointLabel, name, c.Seq, c.Hash, c.every)
}

// sign returns c as a C2SP signed note (c2sp.org/signed-note).
func (s *Signer) sign(c checkpoint) (string, error) {
	signed, err := note.Sign(&note.Note{Text: c.text(s.signer.Name())}, s.signer)
	return string(signed), err
}

// openCheckpoint verifies a signed note and returns what it states.
func openCheckpoint(signed string, verifier note.Verifier) (checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, fmt.Errorf("the checkpoint is not signed by %s", verifier.Name())
	}
	lines := strings.Split(n.Text, "\n")
	if version, ok := strings.CutPrefix(lines[0], checkpointFormat); ok && lines[0] != checkpointLabel {
		return checkpoint{}, fmt.Errorf("the checkpoint has format %q, this release knows v1 (use the release that wrote it)", version)
	}
	if len(lines) != 6 {
		return checkpoint{}, errors.New("the signed text is not a checkpoint")
	}
	seq, err1 := strconv.ParseUint(lines[2], 10, 64)
	every, err2 := strconv.Atoi(strings.TrimPrefix(lines[4], "every "))
	c := checkpoint{Anchor{Seq: seq, Hash: lines[3]}, every}
	if err := errors.Join(err1, err2); err != nil || every < 1 || n.Text != c.text(verifier.Name()) {
		return checkpoint{}, errors.New("the signed text is not a checkpoint of this trail")
	}
	return c, nil
}
