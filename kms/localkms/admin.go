package localkms

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/internal/uuid"
)

// Bounds of a key's metadata.
const (
	maxDescription = 8192 // bytes
	maxTags        = 50   // of one key
	maxTagName     = 128  // bytes
	maxTagValue    = 256  // bytes
)

// State tells what a key may be used for.
type State string

// The states of a key.
const (
	Enabled         State = "enabled"          // usable
	Disabled        State = "disabled"         // kms.ErrDisabled until it is enabled again
	PendingDeletion State = "pending deletion" // kms.ErrPendingDeletion until it is deleted, or the deletion cancelled
)

// stateCodes are the states by their number in a document.
var stateCodes = []State{1: Enabled, 2: Disabled, 3: PendingDeletion}

// Info describes a key. It holds nothing secret.
type Info struct {
	ID          string            `json:"id"`  // UUID
	ARN         string            `json:"arn"` // "arn:blobseal:kms:REGION:ACCOUNT:key/ID"
	Account     string            `json:"account"`
	Region      string            `json:"region"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Created     time.Time         `json:"created"` // UTC, in whole milliseconds
	State       State             `json:"state"`
	Default     bool              `json:"default,omitempty"` // made by the service as a default key
	HasPolicy   bool              `json:"hasPolicy,omitempty"`

	// Deletion is when the key is deleted; zero unless it is PendingDeletion.
	Deletion time.Time `json:"deletion,omitzero"`

	Rotation Rotation `json:"rotation"`
}

func (k *key) info() *Info {
	i := &Info{
		ID: k.id.String(), ARN: k.arn, Account: k.account, Region: k.region,
		Description: k.description, Tags: maps.Clone(k.tags), Created: date(k.created),
		State: k.state, Default: k.isDefault, HasPolicy: len(k.policies) > 0,
		Rotation: k.rotationInfo(),
	}
	if k.state == PendingDeletion {
		i.Deletion = date(k.deadline)
	}
	return i
}

// CreateKeyInput is what [Client.CreateKey] takes. Nil makes a key without a
// description, tags, schedule or policy.
type CreateKeyInput struct {
	Description string
	Tags        map[string]string

	// RotationDays is the rotation period, from MinRotationDays to MaxRotationDays; see
	// [Client.EnableKeyRotation]. Zero means no schedule.
	RotationDays int

	// Policy is the key's policy, see [Client.PutKeyPolicy]; empty means none.
	Policy string

	// BypassLockoutCheck accepts a Policy that forbids the caller to replace it.
	BypassLockoutCheck bool
}

// CreateKey makes a key in the client's account and region. The key is enabled and
// has one version. After [kms.ErrUnavailable] the key may exist: look for it with
// [Client.ListKeys].
func (c *Client) CreateKey(ctx context.Context, in *CreateKeyInput) (*Info, error) {
	if in == nil {
		in = new(CreateKeyInput)
	}
	o := c.service.begin(ctx, opCreateKey, "", nil)
	k, err := c.newKey(in)
	if err == nil {
		err = o.update(func(d *draft) error {
			if err := c.authorizeAccount(o.ctx, o.op); err != nil {
				return err
			}
			d.add(k)
			o.report.KeyID = k.arn
			if len(k.policies) > 0 && !in.BypassLockoutCheck {
				return c.checkLockout(o.ctx, k)
			}
			return nil
		})
	}
	if err := o.finish(err); err != nil {
		return nil, err
	}
	return k.info(), nil
}

// newKey returns a key of the client's account and region, without its times.
func (c *Client) newKey(in *CreateKeyInput) (*key, error) {
	if err := cmp.Or(checkDescription(in.Description), checkTags(in.Tags)); err != nil {
		return nil, err
	}
	if in.RotationDays != 0 {
		if err := checkRotation(in.RotationDays); err != nil {
			return nil, err
		}
	}
	k := &key{
		scope: c.scope, id: uuid.New(), description: in.Description, tags: maps.Clone(in.Tags),
		rotation: schedule{days: uint16(in.RotationDays)},
		versions: []material{{number: 1, origin: Created, key: secret.Random()}},
	}
	if in.Policy != "" {
		p, err := newPolicy(in.Policy)
		if err != nil {
			return nil, err
		}
		k.policies = []keyPolicy{{newMark(), p}}
	}
	return k, nil
}

func checkDescription(text string) error {
	if len(text) > maxDescription || !utf8.ValidString(text) {
		return invalid("description of %d bytes, want UTF-8 of at most %d", len(text), maxDescription)
	}
	return nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%w: %d tags, at most %d", ErrLimit, len(tags), maxTags)
	}
	for name, value := range tags {
		if name == "" || len(name) > maxTagName || len(value) > maxTagValue || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return invalid("tag %q: want a name of 1 to %d bytes and a value of at most %d, UTF-8", shorten(name), maxTagName, maxTagValue)
		}
	}
	return nil
}

// DescribeKey returns the description of a key. The first use of [DefaultAlias]
// makes the default key.
func (c *Client) DescribeKey(ctx context.Context, keyID string) (*Info, error) {
	return view(ctx, c, OpDescribeKey, keyID, (*key).info)
}

// ListKeys returns the keys of the client's account and region, in ascending order
// of their ids, as they are when the loop begins. After an error the loop ends.
func (c *Client) ListKeys(ctx context.Context) iter.Seq2[*Info, error] {
	return func(yield func(*Info, error) bool) {
		o := c.service.begin(ctx, opListKeys, "", nil)
		snap, err := c.service.freshSnapshot(o.ctx)
		if err == nil {
			err = c.authorizeAccount(o.ctx, o.op)
		}
		if err := o.finish(err); err != nil {
			yield(nil, err)
			return
		}
		for _, k := range snap.sortedKeys(&c.scope) {
			if !c.service.isGone(k) && !yield(k.info(), nil) {
				return
			}
		}
	}
}

// EnableKey makes a disabled key usable again. An enabled key stays as it is; a key
// pending deletion is [kms.ErrPendingDeletion].
func (c *Client) EnableKey(ctx context.Context, keyID string) error {
	return c.change(ctx, opEnableKey, keyID, func(d *draft, k *key) error {
		if k.state == Disabled {
			takeBack(d, k.disabled...)
			d.edit(k, func(k *key) { k.disabled = nil })
		}
		return nil
	})
}

// DisableKey refuses every use of the key until it is enabled again. A key pending
// deletion is [kms.ErrPendingDeletion]. Disabling a disabled key is stored, too: a process
// that enables the key without knowing of it does not undo it.
func (c *Client) DisableKey(ctx context.Context, keyID string) error {
	return c.change(ctx, opDisableKey, keyID, func(d *draft, k *key) error {
		if len(k.disabled) < maxDisabled {
			d.edit(k, (*key).disable)
		}
		return nil
	})
}

// UpdateDescription replaces the key's description.
func (c *Client) UpdateDescription(ctx context.Context, keyID, description string) error {
	return c.change(ctx, opUpdateKeyDescription, keyID, func(d *draft, k *key) error {
		if err := checkDescription(description); err != nil {
			return err
		}
		d.editSettings(k, func(k *key) { k.description = description })
		return nil
	})
}

// Tag adds tags to the key and replaces those of the same name. Policies can read
// tags, so a principal that may tag a key may change who can use it.
func (c *Client) Tag(ctx context.Context, keyID string, tags map[string]string) error {
	return c.change(ctx, opTagResource, keyID, func(d *draft, k *key) error {
		all := make(map[string]string)
		maps.Copy(all, k.tags)
		maps.Copy(all, tags)
		if err := checkTags(all); err != nil {
			return err
		}
		d.editSettings(k, func(k *key) { k.tags = all })
		return nil
	})
}

// Untag removes the tags with those names. A missing tag is not an error.
func (c *Client) Untag(ctx context.Context, keyID string, names ...string) error {
	return c.change(ctx, opUntagResource, keyID, func(d *draft, k *key) error {
		rest := maps.Clone(k.tags)
		maps.DeleteFunc(rest, func(name, _ string) bool { return slices.Contains(names, name) })
		d.editSettings(k, func(k *key) { k.tags = rest })
		return nil
	})
}
