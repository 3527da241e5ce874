package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// kmsAliasCmd are the commands on aliases.
type kmsAliasCmd struct {
	Create kmsAliasCreateCmd `cmd:"" help:"Give a key a name."`
	Update kmsAliasUpdateCmd `cmd:"" help:"Make a name that exists another key's."`
	Delete kmsAliasDeleteCmd `cmd:"" help:"Take a name away; the key stays."`
	List   kmsAliasListCmd   `cmd:"" help:"List names."`
}

// aliasArg names an alias.
type aliasArg struct {
	Alias string `arg:"" placeholder:"alias/NAME" help:"Its name, with alias/ in front. Names that begin with alias/blobseal/ are the service's."`
}

type kmsAliasCreateCmd struct {
	kmsFlags
	aliasArg
	serviceKeyArg
}

func (kmsAliasCreateCmd) Help() string {
	return `Files keep the id of the key, not the name that it had.

    blobseal kms alias create --kms my.kms --root-key-file root.key alias/photos 5b2c8e01-…`
}

func (cmd kmsAliasCreateCmd) Run(ctx context.Context, c *console) error {
	return cmd.name(ctx, c, localkms.OpCreateAlias, cmd.Alias, cmd.Key, (*localkms.Client).CreateAlias)
}

func (f kmsFlags) name(ctx context.Context, c *console, op kms.Operation, alias, key string, do func(*localkms.Client, context.Context, string, string) error) error {
	return f.with(ctx, c, func(ctx context.Context, s *keyService) error {
		if err := do(s.Client, ctx, alias, key); err != nil {
			return s.about(op, key, err)
		}
		return c.printf("%s: %s is %s\n", printable(f.KMS), printable(alias), printable(key))
	})
}

type kmsAliasUpdateCmd struct {
	kmsFlags
	aliasArg
	serviceKeyArg
}

func (kmsAliasUpdateCmd) Help() string {
	return `New files that name the alias get the new key; old ones keep theirs until they are rewrapped.

    blobseal kms alias update --kms my.kms --root-key-file root.key alias/photos 5b2c8e01-…`
}

func (cmd kmsAliasUpdateCmd) Run(ctx context.Context, c *console) error {
	return cmd.name(ctx, c, localkms.OpUpdateAlias, cmd.Alias, cmd.Key, (*localkms.Client).UpdateAlias)
}

type kmsAliasDeleteCmd struct {
	kmsFlags
	aliasArg
}

func (kmsAliasDeleteCmd) Help() string {
	return `Files that were encrypted by that name stay readable.

    blobseal kms alias delete --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsAliasDeleteCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpDeleteAlias, cmd.Alias, func(ctx context.Context, s *keyService) error {
		return s.DeleteAlias(ctx, cmd.Alias)
	}, "is deleted")
}

type kmsAliasListCmd struct {
	kmsFlags
	Key  string `arg:"" optional:"" help:"Only those of this key."`
	JSON bool   `name:"json" help:"Write JSON."`
}

func (kmsAliasListCmd) Help() string {
	return `One line for each alias, with the key's id.

    blobseal kms alias list --kms my.kms --root-key-file root.key`
}

func (cmd kmsAliasListCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		aliases := []*localkms.Alias{}
		for marker := ""; ; {
			page, next, err := s.ListAliases(ctx, cmd.Key, localkms.MaxPage, marker)
			if err != nil {
				return s.about(localkms.OpListAliases, cmd.Key, err)
			}
			aliases = append(aliases, page...)
			if marker = next; next == "" {
				break
			}
		}
		if cmd.JSON {
			return c.writeJSON(map[string]any{"aliases": aliases})
		}
		return c.table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ALIAS\tKEY\tCREATED\tUPDATED")
			for _, a := range aliases {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Name, a.KeyID, a.Created.Format(time.RFC3339), a.Updated.Format(time.RFC3339))
			}
		})
	})
}

// kmsPolicyCmd are the commands on policies.
type kmsPolicyCmd struct {
	Get    kmsPolicyGetCmd    `cmd:"" help:"Write a key's policy, as it was put."`
	Put    kmsPolicyPutCmd    `cmd:"" help:"Give a key a policy, in place of the one that it may have."`
	Delete kmsPolicyDeleteCmd `cmd:"" help:"Take a key's policy away: everyone may do everything then."`
}

const policyHelp = `A policy is in Cedar. A key that has one denies what nobody permits, and forbid beats permit. The actions are the operations of AWS KMS, such as Action::"Decrypt", and the groups Action::"Use", Action::"View" and Action::"Administer". Writing needs GenerateDataKey, reading Decrypt. A writer who may not read:

    permit (principal == Principal::"user:admin", action, resource);
    permit (principal == Principal::"user:writer", action == Action::"GenerateDataKey", resource);
    permit (principal == Principal::"user:reader", action == Action::"Decrypt", resource)
      when { context.encryptionContext has team && context.encryptionContext.team == "blue" };`

func (kmsPolicyCmd) Help() string { return policyHelp }

type kmsPolicyGetCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsPolicyGetCmd) Help() string {
	return `A key without a policy is an error.

    blobseal kms policy get --kms my.kms --root-key-file root.key alias/photos >photos.cedar`
}

func (cmd kmsPolicyGetCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		text, err := s.KeyPolicy(ctx, cmd.Key)
		if err != nil {
			return s.about(localkms.OpGetKeyPolicy, cmd.Key, err)
		}
		if text == "" {
			return problemf(nil, "%s: %s has no policy: everyone may do everything with it", cmd.KMS, cmd.Key)
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return c.printf("%s", text)
	})
}

type kmsPolicyPutCmd struct {
	kmsFlags
	serviceKeyArg
	File  string `arg:"" help:"Policy in Cedar; - is standard input."`
	Force bool   `help:"Set it although it forbids you to replace it."`
}

func (kmsPolicyPutCmd) Help() string {
	return policyHelp + `

It is refused if it does not parse, and if you could not put another one under it.

    blobseal kms policy put --kms my.kms --root-key-file root.key alias/photos photos.cedar`
}

func (cmd kmsPolicyPutCmd) Run(ctx context.Context, c *console) error {
	text, err := c.readPolicy(ctx, cmd.File)
	if err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		if err := s.PutKeyPolicy(ctx, cmd.Key, text, &localkms.PutKeyPolicyOptions{BypassLockoutCheck: cmd.Force}); err != nil {
			return s.aboutPolicy(localkms.OpPutKeyPolicy, cmd.Key, cmd.File, err)
		}
		return c.printf("%s: %s has the policy\n", printable(cmd.KMS), printable(cmd.Key))
	})
}

// readPolicy reads a policy, without judging it.
func (c *console) readPolicy(ctx context.Context, name string) (string, error) {
	in, err := c.open(ctx, name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in.r, localkms.MaxPolicy+1))
	if err == nil && len(text) > localkms.MaxPolicy {
		err = fmt.Errorf("more than %d bytes, too long for a policy", localkms.MaxPolicy)
	}
	return string(text), about(in.name, err)
}

// aboutPolicy is about for what a policy in a file may be the cause of.
func (s *keyService) aboutPolicy(op kms.Operation, key, file string, err error) error {
	if errors.Is(err, localkms.ErrPolicy) || errors.Is(err, localkms.ErrLockout) {
		if file == "-" {
			file = "standard input"
		}
		return problemf(err, "%s: %s", file, s.says(op, key, err))
	}
	return s.about(op, key, err)
}

type kmsPolicyDeleteCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsPolicyDeleteCmd) Help() string {
	return `Grants stay.

    blobseal kms policy delete --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsPolicyDeleteCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpDeleteKeyPolicy, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.DeleteKeyPolicy(ctx, cmd.Key)
	}, "has no policy any more: everyone may do everything with it")
}

// kmsGrantCmd are the commands on grants.
type kmsGrantCmd struct {
	Create kmsGrantCreateCmd `cmd:"" help:"Permit someone to use a key."`
	List   kmsGrantListCmd   `cmd:"" help:"List the grants of a key."`
	Revoke kmsGrantRevokeCmd `cmd:"" help:"Take a grant away, as who administers the key."`
	Retire kmsGrantRetireCmd `cmd:"" help:"Give a grant up, as who has it or retires it."`
}

type kmsGrantCreateCmd struct {
	kmsFlags
	serviceKeyArg
	To            string          `required:"" placeholder:"ID" help:"Principal that is permitted."`
	Operation     []kms.Operation `required:"" placeholder:"OP" enum:"GenerateDataKey,GenerateDataKeyWithoutPlaintext,Encrypt,Decrypt,ReEncryptFrom,ReEncryptTo,DescribeKey,RetireGrant" help:"What it may do: ${enum}. May be repeated."`
	ContextEquals []string        `placeholder:"K=V" sep:"none" help:"Only where the encryption context has these pairs and no others."`
	ContextSubset []string        `placeholder:"K=V" sep:"none" help:"Only where the encryption context has these pairs among others."`
	RetireBy      string          `placeholder:"ID" help:"Principal that may retire the grant."`
	Name          string          `help:"Name, so that a repetition of the command changes nothing."`
}

func (kmsGrantCreateCmd) Help() string {
	return `It writes the grant's id. A grant permits beside the key's policy; what a policy forbids stays forbidden. The encryption context of a file is what --context gave to encrypt, and blobseal:object with the file's name.

    blobseal kms grant create --kms my.kms --root-key-file root.key alias/photos --to user:bob --operation Decrypt --context-subset team=blue`
}

func (cmd kmsGrantCreateCmd) Run(ctx context.Context, c *console) error {
	in := &localkms.CreateGrantInput{Grantee: cmd.To, Operations: cmd.Operation, RetiringPrincipal: cmd.RetireBy, Name: cmd.Name}
	if len(cmd.ContextEquals) > 0 && len(cmd.ContextSubset) > 0 {
		return usagef("--context-equals and --context-subset: give one of them only")
	}
	var err error
	if in.ContextEquals, err = parsePairs("--context-equals", cmd.ContextEquals); err != nil {
		return err
	}
	if in.ContextSubset, err = parsePairs("--context-subset", cmd.ContextSubset); err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		grant, err := s.CreateGrant(ctx, cmd.Key, in)
		if err != nil {
			return s.about(localkms.OpCreateGrant, cmd.Key, err)
		}
		return c.printf("%s\n", grant.ID)
	})
}

type kmsGrantListCmd struct {
	kmsFlags
	serviceKeyArg
	JSON bool `name:"json" help:"Write JSON."`
}

func (kmsGrantListCmd) Help() string {
	return `The oldest is first.

    blobseal kms grant list --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsGrantListCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		grants, err := s.ListGrants(ctx, cmd.Key)
		if err != nil {
			return s.about(localkms.OpListGrants, cmd.Key, err)
		}
		if cmd.JSON {
			return c.writeJSON(map[string]any{"grants": append([]*localkms.Grant{}, grants...)})
		}
		return c.table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "GRANT\tNAME\tTO\tOPERATIONS\tCONTEXT\tRETIRED BY\tCREATED")
			for _, g := range grants {
				var ops []string
				for _, op := range g.Operations {
					ops = append(ops, string(op))
				}
				limit := "any"
				if len(g.ContextEquals) > 0 {
					limit = "equals " + pairsShown(g.ContextEquals)
				} else if len(g.ContextSubset) > 0 {
					limit = "has " + pairsShown(g.ContextSubset)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, orNone(g.Name), printable(g.Grantee), strings.Join(ops, " "), limit, orNone(g.RetiringPrincipal), g.Created.Format(time.RFC3339))
			}
		})
	})
}

func pairsShown(ec kms.Context) string {
	var pairs []string
	for _, name := range ec.Keys() {
		pairs = append(pairs, printable(name+"="+ec[name]))
	}
	return strings.Join(pairs, " ")
}

// grantArg names a grant.
type grantArg struct {
	Grant string `arg:"" help:"Id; see kms grant list."`
}

type kmsGrantRevokeCmd struct {
	kmsFlags
	serviceKeyArg
	grantArg
}

func (kmsGrantRevokeCmd) Help() string {
	return `It ends at once.

    blobseal kms grant revoke --kms my.kms --root-key-file root.key alias/photos 5b2c8e01…`
}

func (cmd kmsGrantRevokeCmd) Run(ctx context.Context, c *console) error {
	return cmd.end(ctx, c, localkms.OpRevokeGrant, cmd.Key, cmd.Grant, (*localkms.Client).RevokeGrant, "revoked")
}

func (f kmsFlags) end(ctx context.Context, c *console, op kms.Operation, key, grant string, do func(*localkms.Client, context.Context, string, string) error, done string) error {
	return f.with(ctx, c, func(ctx context.Context, s *keyService) error {
		if err := do(s.Client, ctx, key, grant); err != nil {
			return s.about(op, key, err)
		}
		return c.printf("%s: grant %s of %s is %s\n", printable(f.KMS), printable(grant), printable(key), done)
	})
}

type kmsGrantRetireCmd struct {
	kmsFlags
	serviceKeyArg
	grantArg
}

func (kmsGrantRetireCmd) Help() string {
	return `Its retiring principal may do that, and the one that it permits, if RetireGrant is among its operations.

    blobseal kms grant retire --kms my.kms --root-key-file root.key --principal user:bob alias/photos 5b2c8e01…`
}

func (cmd kmsGrantRetireCmd) Run(ctx context.Context, c *console) error {
	return cmd.end(ctx, c, localkms.OpRetireGrant, cmd.Key, cmd.Grant, (*localkms.Client).RetireGrant, "retired")
}
