package message

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"al.essio.dev/pkg/shellescape"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// Attempt is what a command was doing when an error occurred. Fields that do not
// apply are empty.
type Attempt struct {
	// The keys in use: a ring, or a key service.
	Ring, RingID       string   // the ring's file, and its id if known
	Service, Principal string   // the service's directory, and who asks
	Root               []string // flags of its root, for commands in hints
	Key                string   // of the service, as it was asked for

	// The sealed file or object at hand. Mode is 0 before its envelope was read.
	Mode   sse.Mode
	KeyID  string
	Bucket string // name of its bucket; empty for a file
}

// Ring returns an error of a ring as a [Problem]. Root are the flags of its root.
func Ring(path string, err error, root ...string) error {
	return Attempt{Ring: path, Root: root}.About(path, err)
}

// Command returns a command that can be pasted into a shell.
func Command(words ...string) string {
	return shellescape.QuoteCommand(append([]string{"blobseal"}, words...))
}

// Shell returns a command of the system that can be pasted into a shell.
func Shell(words ...string) string { return shellescape.QuoteCommand(words) }

// Command returns a command on the attempt's ring or key service, with all flags.
func (a Attempt) Command(words []string, args ...string) string {
	if a.Service != "" {
		words = append(words, "--kms", a.Service)
	} else {
		words = append(words, "--ring", a.Ring)
	}
	return Command(append(append(words, a.Root...), args...)...)
}

// About returns err as a [Problem] with a subject.
func (a Attempt) About(subject string, err error) error { return about(subject, err, a.Words) }

// Words returns the words for err: of the first entry of the table that applies.
func (a Attempt) Words(err error) Words {
	for _, e := range table {
		if !errors.Is(err, e.kind) {
			continue
		}
		if words := e.words(a, err); words.Text != "" {
			return words
		}
	}
	if a.Bucket != "" {
		return storeWords(err)
	}
	return plainWords(a, err)
}

// IsKeys reports whether an error is about keys: a ring, a key service or its audit
// trail, and not about what they open. An error in words is about neither.
func IsKeys(err error) bool {
	if InWords(err) {
		return false
	}
	for _, e := range table {
		if e.keys && errors.Is(err, e.kind) {
			return true
		}
	}
	return false
}

// entry has the words for a kind of error. They are empty if the entry does not
// apply to the attempt.
type entry struct {
	kind  error
	keys  bool // the error is about keys
	words func(a Attempt, err error) Words
}

// table has the words for all kinds of errors. The first entry that applies counts:
// an error is often of several kinds, and the more telling ones come first.
var table = []entry{
	// What an administrator of a key service did wrong.
	{localkms.ErrPolicy, true, plainWords},
	{localkms.ErrLockout, true, Attempt.lockoutWords},
	{localkms.ErrAlreadyExists, true, plainWords},
	{localkms.ErrReserved, true, plainWords},
	{localkms.ErrLimit, true, plainWords},
	{localkms.ErrFull, true, plainWords},

	// Audit trails.
	{audit.ErrNotRecorded, true, Attempt.notRecordedWords},

	// Roots, of rings and of key services.
	{keyring.ErrRoot, true, Attempt.rootWords},
	{keyring.ErrRootUnavailable, true, Attempt.rootUnavailableWords},

	// Key services.
	{kms.ErrDenied, true, plainWords},
	{kms.ErrDisabled, true, refusedWords("the key is disabled", "enable it", "enable")},
	{kms.ErrPendingDeletion, true, refusedWords("the key is pending deletion", "keep it", "cancel-deletion")},
	{kms.ErrNotFound, true, Attempt.noKeyWords},
	{sse.ErrMode, false, Attempt.modeWords},
	{kms.ErrInvalid, true, plainWords},

	// Rings.
	{keyring.ErrDisabled, true, Attempt.disabledWords},
	{keyring.ErrDestroyed, true, sealedUnderWords("which was destroyed: nothing can open it")},
	{keyring.ErrDestroyed, true, versionWords("was destroyed, which cannot be undone")},
	{keyring.ErrPrimary, true, Attempt.primaryWords},
	{keyring.ErrNotExist, true, Attempt.notExistWords},
	{keyring.ErrExist, true, words("already exists, and is never overwritten", "")},
	{keyring.ErrVersion, true, wordsWithCause("written by another release of blobseal")},
	{keyring.ErrDamaged, true, Attempt.damagedWords},
	{keyring.ErrFull, true, ringWords("the ring is full", "create a second ring, and rewrap to it")},
	{keyring.ErrStore, true, Attempt.storeWords},
	{keyring.ErrUnknownKey, true, Attempt.unknownVersionWords},
	{keyring.ErrConflict, true, plainWords},
	{kms.ErrUnavailable, true, Attempt.storeWords},

	// Files and objects.
	{blob.ErrPlain, false, words("not encrypted", "--allow-plain reads it, encrypt-existing encrypts it")},
	{blob.ErrChanged, false, words("replaced or deleted meanwhile", "")},
	{sse.ErrComposite, false, words("uploaded in parts, which only a regular file can be read from", "save it first")},
	{sse.ErrVersion, false, wordsWithCause("sealed by another release of blobseal")},
	{sse.ErrFormat, false, Attempt.formatWords},
	{sse.ErrKey, false, Attempt.wrongKeyWords},
	{sse.ErrTruncated, false, words("truncated: it ends where no sealed file or object can end", "")},
	{sse.ErrCorrupt, false, corruptWords},
	{sse.ErrTooLarge, true, plainWords},
	{sse.ErrInvalid, true, plainWords},
}

// plainWords returns the error's own text. That of a [*kms.KeyError] names the key
// and the operation a second time, so its cause is taken.
func plainWords(_ Attempt, err error) Words {
	if failed, ok := errors.AsType[*kms.KeyError](err); ok {
		err = failed.Err
	}
	return say("%s", Plain(err))
}

// words returns the same text and advice for every error.
func words(text, advice string) func(Attempt, error) Words {
	return func(Attempt, error) Words { return Words{Text: text, Advice: advice} }
}

// wordsWithCause returns a text, followed by the error's own.
func wordsWithCause(text string) func(Attempt, error) Words {
	return func(_ Attempt, err error) Words { return say("%s: %s", text, Plain(err)) }
}

// versionWords returns a text about a version that was to be changed.
func versionWords(text string) func(Attempt, error) Words {
	return func(a Attempt, err error) Words {
		if a.Ring == "" {
			return Words{}
		}
		if version, ok := errors.AsType[*keyring.VersionError](err); ok {
			return say("version %s %s", version.ID, text)
		}
		return say("the version %s", text)
	}
}

// ringWords returns words about a ring.
func ringWords(text, advice string) func(Attempt, error) Words {
	return func(a Attempt, _ error) Words {
		if a.Ring == "" {
			return Words{}
		}
		return Words{Text: text, Advice: advice}
	}
}

// sealedUnderWords returns a text about the version of a ring that an object needs.
func sealedUnderWords(text string) func(Attempt, error) Words {
	return func(a Attempt, _ error) Words {
		if a.Mode == 0 {
			return Words{}
		}
		return say("sealed under version %s, %s", a.KeyID, text)
	}
}

// refusedWords returns words about a key of a key service, and a command that helps.
func refusedWords(text, does, command string) func(Attempt, error) Words {
	return func(a Attempt, err error) Words {
		if a.Service == "" {
			return Words{}
		}
		op, key := a.failedOperation(err)
		return Words{fmt.Sprintf("%q may not %s with %s: %s", a.Principal, op, key, text), does, a.Command([]string{"kms", command}, ShortKey(key))}
	}
}

// failedOperation returns the operation that failed, and its key.
func (a Attempt) failedOperation(err error) (kms.Operation, string) {
	if failed, ok := errors.AsType[*kms.KeyError](err); ok {
		return failed.Op, cmp.Or(failed.KeyID, a.Key)
	}
	return "", a.Key
}

// document is the path of a key service's document.
func (a Attempt) document() string {
	if a.Service == "" {
		return ""
	}
	return KeysPath(a.Service)
}

func (a Attempt) noun() string {
	if a.Ring == "" {
		return "key service"
	}
	return "ring"
}

func (a Attempt) storeWords(err error) Words {
	switch {
	case a.Ring != "" && IsDirectory(a.Ring):
		return say("%v", ErrIsDirectory)
	case a.Service != "" && IsDirectory(a.document()):
		return say("%s %v", a.document(), ErrIsDirectory)
	}
	return plainWords(a, err)
}

func (a Attempt) lockoutWords(error) Words {
	return Words{Text: fmt.Sprintf("%q could not replace this policy", a.Principal), Advice: "permit PutKeyPolicy, or give --force"}
}

func (a Attempt) notRecordedWords(err error) Words {
	words := trailWords(partBeside(err, audit.ErrNotRecorded)).withPrefix("not done, because the audit trail could not record it: ")
	if a.Service != "" && errors.As(err, new(*audit.ChainError)) {
		words.Advice = fmt.Sprintf("find out why; then move %s and %[1]s.* to another directory, to start a new trail", TrailPath(a.Service))
	}
	return words
}

func (a Attempt) rootWords(err error) Words {
	if errors.Is(err, kms.ErrCiphertext) || errors.Is(err, kms.ErrInvalid) { // which names both keys
		return say("%s", Plain(err))
	}
	return say("wrong root: the %s was made with another key or passphrase", a.noun())
}

func (a Attempt) rootUnavailableWords(err error) Words {
	words := say("%s", Plain(err))
	if r, ok := errors.AsType[*Refusal](err); ok {
		words = r.Words
	}
	words = words.withPrefix("its root cannot be used: ")
	if a.Mode != 0 && a.Ring != "" {
		words = words.withPrefix("sealed under version %s, which another process may have added to ring %s after this command opened it: ", a.KeyID, a.Ring)
	}
	return words
}

func (a Attempt) noKeyWords(err error) Words {
	op, key := a.failedOperation(err)
	switch {
	case a.Service == "":
		return Words{}
	case a.Mode != 0:
		return say("sealed under key %q, which %s does not have", a.KeyID, a.Service)
	case op == localkms.OpUpdateAlias: // the error says whether it is the key or the alias
		return plainWords(a, err)
	case op == localkms.OpRevokeGrant, op == localkms.OpRetireGrant:
		return Words{"no such grant of " + key, "list them", a.Command([]string{"kms", "grant", "list"}, ShortKey(key))}
	}
	return Words{fmt.Sprintf("no such key: %q", key), "list them", a.Command([]string{"kms", "list"})}
}

// modeWords says which flags an object of a mode needs.
func (a Attempt) modeWords(error) Words {
	switch a.Mode {
	case sse.ModeManaged:
		return say("sealed under a ring (SSE-S3): give --ring and its root")
	case sse.ModeKMS:
		return say("sealed under a key service (SSE-KMS): give --kms and its root")
	case sse.ModeCustomer:
		return say("sealed under a customer key (SSE-C): give --customer-key-file")
	}
	return Words{}
}

func (a Attempt) disabledWords(error) Words {
	if a.Mode == 0 {
		return Words{}
	}
	return Words{fmt.Sprintf("sealed under version %s, which is disabled", a.KeyID), "enable it", a.Command([]string{"ring", "enable"}, a.KeyID)}
}

func (a Attempt) primaryWords(err error) Words {
	words := versionWords("is the newest, which seals new files")(a, err)
	words.Does, words.Advice = "rotate first", a.Command([]string{"ring", "rotate"})
	return words
}

// creation returns the command that creates the attempt's ring or key service. A new
// passphrase may be missing.
func (a Attempt) creation(words ...string) string {
	if len(a.Root) == 0 {
		return a.Command(words, "--passphrase-prompt")
	}
	return a.Command(words)
}

func (a Attempt) notExistWords(error) Words {
	switch {
	case a.Ring != "":
		return Words{"no such ring", "create one", a.creation("ring", "create")}
	case a.Service != "":
		return Words{"no such key service", "create one", a.creation("kms", "init")}
	}
	return Words{}
}

func (a Attempt) damagedWords(err error) Words {
	if a.Service != "" {
		return Words{Text: fmt.Sprintf("%s: %v", a.document(), plainWords(a, err)), Advice: "restore it from a backup"}
	}
	return Words{Text: Plain(err), Advice: "if this is a ring, restore it from a backup"}
}

func (a Attempt) unknownVersionWords(err error) Words {
	switch {
	case a.Ring == "":
		return Words{}
	case a.Mode == 0:
		text := "no such version"
		if version, ok := errors.AsType[*keyring.VersionError](err); ok {
			text += ": " + version.ID
		}
		return Words{text, "list them", a.Command([]string{"ring", "list"})}
	case a.OfAnotherRing():
		return say("sealed under version %s of another ring (%s is ring %s)", a.KeyID, a.Ring, a.RingID)
	}
	return Words{Text: fmt.Sprintf("sealed under version %s, which ring %s does not have", a.KeyID, a.Ring), Advice: "is the ring file an old copy?"}
}

// OfAnotherRing reports whether an object is sealed under a version of another ring.
func (a Attempt) OfAnotherRing() bool { return !strings.HasPrefix(a.KeyID, a.RingID+".") }

func (a Attempt) formatWords(err error) Words {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && a.Bucket != "":
		return say("truncated within its envelope")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return say("not a sealed file, or truncated within its envelope")
	case a.Bucket != "":
		return say("damaged: %s", Plain(err))
	}
	return say("%s (not a sealed file, or damaged)", Plain(err))
}

func (a Attempt) wrongKeyWords(err error) Words {
	if refused, ok := errors.AsType[*KeyNotAcceptedError](err); ok {
		return refused.words()
	}
	if a.Bucket != "" {
		return say("wrong key, or sealed for another object or for a bucket that is not named %s, or edited envelope", a.Bucket)
	}
	return say("wrong key, object or context, or edited envelope")
}

func corruptWords(a Attempt, err error) Words {
	chunk, ok := errors.AsType[*sse.ChunkError](err)
	if !ok {
		return say("damaged: %s", Plain(err))
	}
	return say("damaged: chunk %d is not authentic, at byte %d of the plaintext", chunk.Chunk, chunk.Chunk*sse.ChunkSize)
}

// ShortKey returns the id in a key's ARN. Other names stay as they are.
func ShortKey(key string) string {
	if _, id, found := strings.Cut(key, ":key/"); found {
		return id
	}
	return key
}

// KeysPath returns the path of the document of the key service in dir.
func KeysPath(dir string) string { return filepath.Join(dir, "keys") }

// TrailPath returns the path of the audit trail of the key service in dir.
func TrailPath(dir string) string { return filepath.Join(dir, "audit.jsonl") }

// partBeside returns what err wraps beside a kind of error, or err.
func partBeside(err, kind error) error {
	for e := err; e != nil; {
		switch wrapper := e.(type) {
		case interface{ Unwrap() []error }:
			for _, part := range wrapper.Unwrap() {
				if !errors.Is(part, kind) {
					return part
				}
			}
			return err
		case interface{ Unwrap() error }:
			e = wrapper.Unwrap()
		default:
			return err
		}
	}
	return err
}
