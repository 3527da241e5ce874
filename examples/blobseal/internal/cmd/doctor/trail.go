package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms/audit"
)

// examineTrail examines the audit trail of a key service. Without a sound one, the
// service refuses every use, and to open it could make things worse.
func (x *examination) examineTrail(dir string) bool {
	path := message.TrailPath(dir)
	if signer := filepath.Join(dir, keys.SignerFile); !exists(signer) {
		x.problem(fs.ErrNotExist, "trail", signer, "restore it from a copy of the directory; if there is none, move "+path+"* away: the next command starts a new trail, and shows a new verifier key",
			"the key that signs the trail is missing")
		return false
	}
	opts := &audit.VerifyOptions{Last: (*audit.Anchor)(x.Reaches)}
	if x.SignedBy != nil {
		opts.Verifier = x.SignedBy
	}
	found, err := audit.Verify(path, opts)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.problem(err, "trail", path, "restore it from a copy and verify it with an anchor; the next use of the service starts a new one", "the trail is missing: who used which key is not known")
		return true
	case err != nil:
		err = message.Trail(path, err)
		fix := "find out who changed it; then move " + path + "* to another directory, to start a new trail"
		if x.Reaches != nil || x.SignedBy != nil {
			fix = "find out who changed it, and restore the trail from a copy that " + message.Command("audit", "verify") + " accepts"
		}
		if errors.Is(err, fs.ErrPermission) {
			fix = "run the command as the owner of " + dir
		}
		x.failed(err, "trail", path, fix)
		return false
	}
	if info, err := os.Stat(path); err == nil && message.OthersMayWrite(info) {
		x.warn("trail", path, message.Shell("chmod", "600", path), "others can write it: its mode is %v", info.Mode().Perm())
	}
	if n := len(found.Recoveries); n > 0 {
		x.warn("trail", path, "see whether a process was killed at those times: "+message.Command("audit", "show", "--kms", dir), "%s", describeTorn(n))
		return true
	}
	x.ok("trail", path, "%s, up to %d:%s", message.Count(found.Records, "record"), found.Last.Seq, found.Last.Hash)
	return true
}

func describeTorn(n int) string {
	if n == 1 {
		return "1 line is incomplete: a process was killed while it wrote"
	}
	return message.Count(n, "line") + " are incomplete: processes were killed while they wrote"
}
