package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// examineKeys opens the keys of a source, or returns nil.
func (x *examination) examineKeys(source keys.Source) *keys.Keys {
	good := x.secretFile("customer key", source.Customer, true)
	good = x.secretFile("root", source.Root.KeyFile, true) && good
	good = x.secretFile("root", source.Root.PassphraseFile, false) && good
	switch {
	case source.KMS != "":
		return x.examineService(source, good)
	case source.Ring != "":
		return x.examineRing(source, good)
	case !good:
		return nil
	}
	k, err := source.Open(x.ctx, x.c)
	if err != nil {
		x.failed(err, "customer key", source.Customer, "")
		return nil
	}
	return k
}

// secretFile examines a file with a key or a passphrase.
func (x *examination) secretFile(part, name string, isKey bool) bool {
	if name == "" {
		return true
	}
	info, err := os.Stat(name)
	if err == nil && isKey {
		var key []byte
		key, err = keys.ReadKey(x.ctx, name)
		clear(key)
	}
	if err != nil {
		fix := "give the file that holds the key; without it nobody can open what it seals"
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			fix = "give the file that keygen made, or restore it from a copy"
		}
		if errors.Is(err, fs.ErrPermission) {
			fix = "run the command as the owner of the file"
		}
		x.failed(message.About(name, err), part, name, fix)
		return false
	}
	if mode := info.Mode(); mode.IsRegular() && message.OthersMayRead(info) {
		x.warn(part, name, message.Shell("chmod", "600", name), "others can read it: its mode is %v", mode.Perm())
		return true
	}
	x.ok(part, name, "readable by its owner alone")
	return true
}

// openFix returns advice for an error of opening a ring or a key service.
func openFix(err error, source keys.Source) string {
	root := source.Root
	switch {
	case isAnyOf(err, keyring.ErrNotExist):
		return "" // the error names the command that creates one
	case isAnyOf(err, keyring.ErrRoot) && root.KMSKey != "":
		return "give the key that the ring was made with in --root-kms-key, or restore the ring"
	case isAnyOf(err, keyring.ErrRoot):
		return "give the root that it was made with, or restore the copy that belongs to this root"
	case isAnyOf(err, keyring.ErrDamaged):
		return "restore the file from its latest copy"
	case isAnyOf(err, keyring.ErrVersion):
		return "use the release of blobseal that wrote it"
	case isAnyOf(err, kms.ErrDisabled, kms.ErrPendingDeletion) && root.Local():
		return "" // as above
	case isAnyOf(err, kms.ErrDisabled):
		return "enable the root's key in its service; running processes continue meanwhile"
	case isAnyOf(err, kms.ErrPendingDeletion):
		return "cancel the deletion of the root's key in its service, now"
	case isAnyOf(err, kms.ErrDenied):
		return "permit this principal to decrypt with the root's key"
	case isAnyOf(err, kms.ErrNotFound):
		return "correct --root-kms-key; if the key was deleted, have a running process rewrap the objects to a new ring"
	case isAnyOf(err, kms.ErrUnavailable, keyring.ErrRootUnavailable):
		return "start the key service or repair the network; check the address and the credentials in the environment"
	}
	return ""
}

func (x *examination) examineRing(source keys.Source, good bool) *keys.Keys {
	if dir := source.Root.Directory(); dir != "" && exists(message.KeysPath(dir)) {
		good = x.examineTrail(dir) && good
	}
	if !good {
		return nil
	}
	k, err := source.Open(x.ctx, x.c)
	if err != nil {
		if source.Root.Local() && isAnyOf(err, keyring.ErrNotExist) && exists(source.Ring) {
			x.failed(err, "root", source.Root.KMSKey, "")
			return nil
		}
		x.failed(err, "ring", source.Ring, openFix(err, source))
		return nil
	}
	x.documentFile("ring", source.Ring)
	x.examineVersions(k)
	for _, name := range x.Backup {
		x.examineBackup(name, k, source)
	}
	return k
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// examineVersions looks at the age and the state of a ring's versions.
func (x *examination) examineVersions(k *keys.Keys) {
	ring, now := k.Ring, time.Now()
	versions := ring.Versions()
	var primary keyring.Version
	disabled := ""
	for _, v := range versions {
		if v.Primary {
			primary = v
		}
		if v.State == keyring.Disabled {
			disabled = v.ID
		}
	}
	age := now.Sub(primary.Created)
	switch {
	case age < -time.Minute:
		x.problem(keyring.ErrTooOld, "ring", k.RingPath, "set the clocks of all machines that use the ring, then run: "+k.RingCommand("rotate"),
			"the newest version is from the future: %s", primary.Created.Format(time.RFC3339))
	case age > 4*ring.Period():
		x.problem(keyring.ErrTooOld, "ring", k.RingPath, k.RingCommand("rotate"),
			"the newest version is %d days old, and services refuse to seal under it: its period is %d days", days(age), days(ring.Period()))
	case age > ring.Period()+24*time.Hour:
		x.warn("ring", k.RingPath, k.RingCommand("rotate"), "rotation is late: the newest version is %d days old, the period is %d days", days(age), days(ring.Period()))
	default:
		x.ok("ring", k.RingPath, "%s, the newest is %s old and rotates after %s", message.Count(len(versions), "version"), message.Count(days(age), "day"), message.Count(days(ring.Period()), "day"))
	}
	if disabled != "" {
		x.warn("ring", k.RingPath, "find out with bucket check which objects need it, then retire it with --destroy, or run: "+k.RingCommand("enable", disabled),
			"version %s is disabled: what it sealed does not open", disabled)
	}
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

// documentFile examines the file of a ring or a key service.
func (x *examination) documentFile(part, path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		x.failed(message.About(path, err), part, path, "")
	case message.OthersMayWrite(info):
		x.warn(part, path, message.Shell("chmod", "600", path), "others can write it, and so destroy it: its mode is %v", info.Mode().Perm())
	}
	if dir, err := os.Stat(filepath.Dir(path)); err == nil && message.OthersMayWrite(dir) && dir.Mode()&fs.ModeSticky == 0 {
		x.warn(part, path, message.Shell("chmod", "go-w", filepath.Dir(path)), "others can write its directory, and so replace it")
	}
	temps, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"*.tmp"))
	if len(temps) > 0 {
		x.warn(part, path, message.Shell(append([]string{"rm"}, temps...)...), "a process that was killed left %s", message.Count(len(temps), "temporary file"))
	}
}

// examineBackup compares a copy of a ring with the ring.
func (x *examination) examineBackup(name string, k *keys.Keys, source keys.Source) {
	copied := source
	copied.Ring = name
	b, err := copied.Open(x.ctx, x.c)
	refresh := message.Shell("cp", source.Ring, name)
	switch {
	case errors.Is(err, keyring.ErrNotExist):
		x.problem(err, "backup", name, refresh, "there is no copy of the ring")
	case errors.Is(err, keyring.ErrRoot):
		x.problem(err, "backup", name, refresh, "the copy does not open with the ring's root: it is from before the root was changed, or of another ring")
	case err != nil:
		x.failed(err, "backup", name, refresh)
	case b.Ring.ID() != k.Ring.ID():
		x.problem(keyring.ErrOtherRing, "backup", name, refresh, "the copy is of another ring, %s", b.Ring.ID())
	case b.Ring.Stats().Generation < k.Ring.Stats().Generation:
		x.problem(keyring.ErrRollback, "backup", name, refresh, "the copy is older than the ring")
	case b.Ring.Stats().Generation > k.Ring.Stats().Generation:
		x.problem(keyring.ErrRollback, "backup", name,
			k.RingCommand("merge", name),
			"the copy is newer than the ring: an old ring was restored")
	default:
		x.ok("backup", name, "has everything that the ring has")
	}
}

func (x *examination) examineService(source keys.Source, good bool) *keys.Keys {
	document := message.KeysPath(source.KMS)
	sound := true
	if exists(document) {
		sound = x.examineTrail(source.KMS)
	}
	if !good || !sound {
		return nil
	}
	k, err := source.Open(x.ctx, x.c)
	if err != nil {
		x.failed(err, "service", source.KMS, x.serviceFix(err, source))
		return nil
	}
	x.documentFile("service", document)
	accepted := source.KMSKeys
	if len(accepted) == 0 && !source.AnyKey {
		accepted = []string{localkms.DefaultAlias}
	}
	for _, key := range accepted {
		x.examineKey(k, source, key)
	}
	return k
}

// serviceFix returns advice for an error of opening a key service.
func (x *examination) serviceFix(err error, source keys.Source) string {
	if isAnyOf(err, kms.ErrNotFound) && source.Root.KMSKey == "" {
		return "correct --kms-key, or run: " + message.Attempt{Service: source.KMS, Root: source.Root.Args()}.Command([]string{"kms", "list"})
	}
	if isAnyOf(err, kms.ErrDisabled, kms.ErrPendingDeletion) {
		return ""
	}
	return openFix(err, source)
}

// examineKey looks at one key of a key service.
func (x *examination) examineKey(k *keys.Keys, source keys.Source, key string) {
	s := k.Service
	subject := source.KMS + " " + key
	info, err := s.DescribeKey(x.ctx, key)
	if err != nil {
		fix := s.Command("list")
		if key != localkms.DefaultAlias && isAnyOf(err, kms.ErrNotFound) {
			fix = "correct --kms-key; see: " + fix
		}
		if isAnyOf(err, kms.ErrDenied) {
			fix = "permit this principal to DescribeKey, or give --principal"
		}
		if key == localkms.DefaultAlias && isAnyOf(err, kms.ErrNotFound) { // the first use makes it
			x.ok("service", subject, "its first use will create it")
			return
		}
		x.failed(s.About(key, err), "service", subject, fix)
		return
	}
	id := message.ShortKey(info.ARN)
	switch {
	case info.State == localkms.PendingDeletion:
		x.problem(kms.ErrPendingDeletion, "service", subject, s.Command("cancel-deletion", id),
			"the key is refused, and deleted on %s", info.Deletion.Format(time.RFC3339))
		return
	case info.State == localkms.Disabled:
		x.problem(kms.ErrDisabled, "service", subject, s.Command("enable", id), "the key is disabled")
		return
	}
	for _, op := range []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt} {
		if err := s.Authorize(x.ctx, op, key, kms.Context{sse.ContextObject: "doctor/doctor"}); isAnyOf(err, kms.ErrDenied) {
			x.warn("service", subject, "permit it with "+s.Command("grant create", id, "--operation", string(op), "--to", kms.PrincipalFrom(x.ctx).ID)+", or in the key's policy",
				"%q may not %s", kms.PrincipalFrom(x.ctx).ID, op)
			return
		}
	}
	x.ok("service", subject, "enabled, %s", message.Count(info.Rotation.Versions, "version"))
}
