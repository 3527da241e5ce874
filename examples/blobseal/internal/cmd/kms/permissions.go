package kms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// aliasCmd are the commands on aliases.
type aliasCmd struct {
	Create aliasCreateCmd `cmd:"" help:"Give a key a name."`
	Update aliasUpdateCmd `cmd:"" help:"Move a name to another key."`
	Delete aliasDeleteCmd `cmd:"" help:"Delete a name. The key stays."`
	List   aliasListCmd   `cmd:"" help:"List names."`
}

// aliasArg names an alias.
type aliasArg struct {
	Alias string `arg:"" placeholder:"alias/NAME" help:"Alias, such as alias/photos. The service owns those that begin with alias/blobseal/."`
}

// aliasFlags name an alias and the key that it is for.
type aliasFlags struct {
	serviceFlags
	aliasArg
	keyArg
}

// set gives the alias to the key, and says so.
func (f aliasFlags) set(ctx context.Context, c *console.Console,
	do func(s *localkms.Client, ctx context.Context, alias, key string) error) error {
	return f.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := do(s.Client, ctx, f.Alias, f.Key); err != nil {
			return s.About(f.Key, err)
		}
		return c.ReportChange(change{f.KMS, f.Alias, "is " + f.Key}, "%s: %s is %s\n", message.Printable(f.KMS), message.Printable(f.Alias), message.Printable(f.Key))
	})
}

type aliasCreateCmd struct{ aliasFlags }

func (cmd aliasCreateCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.set(ctx, c, (*localkms.Client).CreateAlias)
}

type aliasUpdateCmd struct{ aliasFlags }

func (cmd aliasUpdateCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.set(ctx, c, (*localkms.Client).UpdateAlias)
}

type aliasDeleteCmd struct {
	serviceFlags
	aliasArg
}

func (cmd aliasDeleteCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Alias, (*localkms.Client).DeleteAlias, "is deleted")
}

type aliasListCmd struct {
	serviceFlags
	Key string `arg:"" optional:"" help:"Only aliases of this key."`
}

func (cmd aliasListCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		aliases := []*localkms.Alias{}
		for a, err := range s.ListAliases(ctx, cmd.Key) {
			if err != nil {
				return s.About(cmd.Key, err)
			}
			aliases = append(aliases, a)
		}
		if c.JSON {
			return c.WriteJSON(map[string]any{"aliases": aliases})
		}
		return c.Table(func(w io.Writer) {
			fmt.Fprintln(w, "ALIAS\tKEY\tCREATED\tUPDATED")
			for _, a := range aliases {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Name, a.KeyID, a.Created.Format(time.RFC3339), a.Updated.Format(time.RFC3339))
			}
		})
	})
}

// policyCmd are the commands on policies.
type policyCmd struct {
	Get    policyGetCmd    `cmd:"" help:"Show a key's policy."`
	Put    policyPutCmd    `cmd:"" help:"Set a key's policy."`
	Delete policyDeleteCmd `cmd:"" help:"Delete a key's policy. Then everyone may do everything with the key."`
}

type policyGetCmd struct{ keyFlags }

func (cmd policyGetCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		text, err := s.KeyPolicy(ctx, cmd.Key)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		if text == "" {
			return message.Problemf(kms.ErrNotFound, cmd.KMS, "%s has no policy: everyone may do everything with it", cmd.Key)
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if c.JSON {
			return c.WriteLine(map[string]string{"policy": text})
		}
		if !c.IsTerminal(c.Stdout) {
			return c.Printf("%s", text)
		}
		for line := range strings.Lines(text) { // the policy's author must not command this terminal
			if err := c.Printf("%s\n", message.Printable(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
		return nil
	})
}

type policyPutCmd struct {
	keyFlags
	File  string `arg:"" help:"Policy in Cedar; - is standard input."`
	Force bool   `help:"Set a policy that forbids you to replace it."`
}

func (cmd policyPutCmd) Run(ctx context.Context, c *console.Console) error {
	text, err := readPolicy(ctx, c, cmd.File)
	if err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := s.PutKeyPolicy(ctx, cmd.Key, text, &localkms.PutKeyPolicyOptions{BypassLockoutCheck: cmd.Force}); err != nil {
			return aboutPolicy(s, cmd.Key, cmd.File, err)
		}
		return c.ReportChange(change{cmd.KMS, cmd.Key, "has the policy"}, "%s: %s has the policy\n", message.Printable(cmd.KMS), message.Printable(cmd.Key))
	})
}

// readPolicy reads a policy from a file.
func readPolicy(ctx context.Context, c *console.Console, name string) (string, error) {
	in, err := file.Open(ctx, c, name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in.R, localkms.MaxPolicy+1))
	if err == nil && len(text) > localkms.MaxPolicy {
		err = fmt.Errorf("more than %d bytes, too long for a policy", localkms.MaxPolicy)
	}
	return string(text), message.About(in.Name, err)
}

// aboutPolicy returns an error of an operation with a policy from a file.
func aboutPolicy(s *keys.Service, key, file string, err error) error {
	if errors.Is(err, localkms.ErrPolicy) || errors.Is(err, localkms.ErrLockout) {
		if file == "-" {
			file = "standard input"
		}
		return message.Advise(err, file, s.Words(key, err))
	}
	return s.About(key, err)
}

type policyDeleteCmd struct{ keyFlags }

func (cmd policyDeleteCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, (*localkms.Client).DeleteKeyPolicy, "has no policy: everyone may do everything with it")
}

// grantCmd are the commands on grants.
type grantCmd struct {
	Create grantCreateCmd `cmd:"" help:"Permit someone to use a key."`
	List   grantListCmd   `cmd:"" help:"List the grants of a key."`
	Revoke grantRevokeCmd `cmd:"" help:"End a grant, as an administrator of the key."`
	Retire grantRetireCmd `cmd:"" help:"End a grant, as its grantee or its retiring principal."`
}

type grantCreateCmd struct {
	keyFlags
	To            string          `required:"" placeholder:"ID" help:"Grantee: the principal who is permitted."`
	Operation     []kms.Operation `required:"" placeholder:"OP" enum:"GenerateDataKey,GenerateDataKeyWithoutPlaintext,Encrypt,Decrypt,ReEncryptFrom,ReEncryptTo,DescribeKey,RetireGrant" help:"What the grantee may do: ${enum}. May be repeated."`
	ContextEquals []string        `placeholder:"K=V" sep:"none" help:"Only if the encryption context is exactly these pairs."`
	ContextSubset []string        `placeholder:"K=V" sep:"none" help:"Only if the encryption context contains these pairs."`
	RetireBy      string          `placeholder:"ID" help:"Principal who may retire the grant."`
	Name          string          `help:"Name. With a name, repeating the command changes nothing."`
}

func (cmd grantCreateCmd) Run(ctx context.Context, c *console.Console) error {
	in := &localkms.CreateGrantInput{Grantee: cmd.To, Operations: cmd.Operation, RetiringPrincipal: cmd.RetireBy, Name: cmd.Name}
	if len(cmd.ContextEquals) > 0 && len(cmd.ContextSubset) > 0 {
		return message.Usagef("--context-equals and --context-subset: give one of them only")
	}
	var err error
	if in.ContextEquals, err = console.ParsePairs("--context-equals", cmd.ContextEquals); err != nil {
		return err
	}
	if in.ContextSubset, err = console.ParsePairs("--context-subset", cmd.ContextSubset); err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		grant, err := s.CreateGrant(ctx, cmd.Key, in)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		return printID(c, grant.ID, "")
	})
}

type grantListCmd struct{ keyFlags }

func (cmd grantListCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		grants, err := s.ListGrants(ctx, cmd.Key)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		if c.JSON {
			return c.WriteJSON(map[string]any{"grants": append([]*localkms.Grant{}, grants...)})
		}
		return c.Table(func(w io.Writer) {
			fmt.Fprintln(w, "GRANT\tNAME\tTO\tOPERATIONS\tCONTEXT\tRETIRED BY\tCREATED")
			for _, g := range grants {
				var ops []string
				for _, op := range g.Operations {
					ops = append(ops, string(op))
				}
				limit := "any"
				if len(g.ContextEquals) > 0 {
					limit = "equals " + strings.Join(message.Pairs(g.ContextEquals), " ")
				} else if len(g.ContextSubset) > 0 {
					limit = "has " + strings.Join(message.Pairs(g.ContextSubset), " ")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, message.OrNone(g.Name), message.Printable(g.Grantee),
					strings.Join(ops, " "), limit, message.OrNone(g.RetiringPrincipal), g.Created.Format(time.RFC3339))
			}
		})
	})
}

// grantFlags name a grant of a key.
type grantFlags struct {
	keyFlags
	Grant string `arg:"" help:"Id of the grant (see kms grant list)."`
}

// end ends the grant, and says so.
func (f grantFlags) end(ctx context.Context, c *console.Console,
	do func(s *localkms.Client, ctx context.Context, key, grant string) error, done string) error {
	return f.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := do(s.Client, ctx, f.Key, f.Grant); err != nil {
			return s.About(f.Key, err)
		}
		return c.ReportChange(change{f.KMS, f.Key, "grant " + f.Grant + " is " + done}, "%s: grant %s of %s is %s\n", message.Printable(f.KMS), message.Printable(f.Grant), message.Printable(f.Key), done)
	})
}

type grantRevokeCmd struct{ grantFlags }

func (cmd grantRevokeCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.end(ctx, c, (*localkms.Client).RevokeGrant, "revoked")
}

type grantRetireCmd struct{ grantFlags }

func (cmd grantRetireCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.end(ctx, c, (*localkms.Client).RetireGrant, "retired")
}
