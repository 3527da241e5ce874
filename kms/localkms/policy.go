package localkms

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"

	"github.com/blobseal/blobseal/kms"
)

// MaxPolicy is the size of the largest policy, in bytes.
const MaxPolicy = 32 << 10

// maxNesting bounds nested brackets in a policy, because the parser and the
// evaluation recurse.
const maxNesting = 64

// Entity types of policies.
const (
	typePrincipal = "Principal"
	typeAction    = "Action"
	typeKey       = "Key"
	typeAccount   = "Account"
)

// policy is a Cedar policy set. It is immutable, and compiled when first asked.
type policy struct {
	text string

	once  sync.Once
	set   cedar.PolicyMap
	wrong error // of compiling
}

// newPolicy parses a policy. It fails with [ErrPolicy].
func newPolicy(text string) (*policy, error) {
	p := &policy{text: text}
	if err := p.compile(); err != nil {
		return nil, err
	}
	return p, nil
}

// compile parses the text, once.
func (p *policy) compile() error {
	p.once.Do(func() { p.set, p.wrong = parsePolicy(p.text) })
	return p.wrong
}

func parsePolicy(text string) (cedar.PolicyMap, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPolicy, len(text), MaxPolicy)
	}
	if err := checkNesting(text); err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("", []byte(text))
	if err != nil {
		return nil, parserError(err)
	}
	set := make(cedar.PolicyMap, len(list))
	for i, p := range list {
		if err := checkScope(p); err != nil {
			at := p.Position()
			return nil, policyError(at.Line, at.Column, err.Error())
		}
		set[cedar.PolicyID(strconv.Itoa(i))] = p
	}
	return set, nil
}

// policyError returns an [ErrPolicy] with the place of the mistake.
func policyError(line, column int, reason string) error {
	return fmt.Errorf("%w: %d:%d: %s", ErrPolicy, line, column, reason)
}

// parserError returns an [ErrPolicy] with what the parser says, which is where the
// mistake is for most mistakes.
func parserError(err error) error {
	text := err.Error()
	for _, prefix := range []string{"parser error: ", "parse error at ", "<input>:"} {
		text = strings.TrimPrefix(text, prefix)
	}
	return fmt.Errorf("%w: %s", ErrPolicy, shorten(text))
}

// checkNesting refuses what is not text, and brackets that are nested too deep.
func checkNesting(text string) error {
	line, column, depth := 1, 0, 0
	quoted, comment := false, false
	fail := func(reason string) error { return policyError(line, column, reason) }
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRuneInString(text[i:])
		i += size
		column++
		switch {
		case c == utf8.RuneError && size == 1:
			return fail("not UTF-8")
		case c == '\n':
			line, column, comment = line+1, 0, false
		case comment:
		case quoted && c == '\\':
			_, size = utf8.DecodeRuneInString(text[i:])
			i += size
			column++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '/' && strings.HasPrefix(text[i:], "/"):
			comment = true
		case c == '(' || c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return fail(fmt.Sprintf("brackets nested deeper than %d", maxNesting))
			}
		case c == ')' || c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

// checkScope refuses a policy whose head names something that this service does not
// have: a permit would never apply, and a forbid would not protect.
func checkScope(p *cedar.Policy) error {
	bare := *p.AST()
	bare.Conditions = nil // which can be long
	data, err := cedar.NewPolicyFromAST(&bare).MarshalJSON()
	if err != nil {
		return err
	}
	var head struct{ Principal, Action, Resource *policyScope }
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	return cmp.Or(
		head.Principal.check("principal", typePrincipal, func(kind, _ string) bool { return kind == typePrincipal }),
		head.Action.check("action", typeAction, func(kind, id string) bool { return kind == typeAction && isAction(id) }),
		head.Resource.check("resource", typeKey+" or "+typeAccount, func(kind, _ string) bool { return kind == typeKey || kind == typeAccount }),
	)
}

// policyScope is the principal, action or resource in the head of a policy, in Cedar's JSON.
type policyScope struct {
	Entity     *policyUID
	Entities   []policyUID
	EntityType string `json:"entity_type"`
	Slot       string
	In         *policyScope
}

type policyUID struct{ Type, ID string }

// check refuses names that this service does not know, of these types.
func (s *policyScope) check(what, types string, known func(kind, id string) bool) error {
	if s == nil {
		return nil
	}
	names := s.Entities
	if s.Entity != nil {
		names = append(names, *s.Entity)
	}
	for _, name := range names {
		if !known(name.Type, name.ID) {
			return fmt.Errorf("no such %s: %s::%q", what, name.Type, name.ID)
		}
	}
	switch {
	case s.EntityType != "" && !known(s.EntityType, ""):
		return fmt.Errorf("no such type of %s: %s; want %s", what, s.EntityType, types)
	case s.Slot != "":
		return fmt.Errorf("template slot in place of a %s", what)
	}
	return s.In.check(what, types, known)
}

func isAction(name string) bool {
	return groups[kms.Operation(name)] != "" || name == groupUse || name == groupView || name == groupAdminister
}

// verdict is what a policy says of a request.
type verdict uint8

const (
	silent    verdict = iota // nothing permits it
	permitted                // and nothing forbids it
	forbidden
)

// decide asks the policy. Cedar skips a forbid that cannot be evaluated, for example
// because it reads a pair that is missing; decide treats it as a forbid.
func (p *policy) decide(r *request) verdict {
	if p.compile() != nil {
		return forbidden // a stored policy was parsed when it was set
	}
	decision, why := cedar.Authorize(p.set, r, r.Request)
	for i := range why.Errors {
		if p.set[why.Errors[i].PolicyID].Effect() == cedar.Forbid {
			return forbidden
		}
	}
	switch {
	case decision == cedar.Allow:
		return permitted
	case len(why.Reasons) > 0:
		return forbidden
	default:
		return silent
	}
}

// attributes are what policies can ask of a key.
func (k *key) attributes() cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"id":      cedar.String(k.id.String()),
		"arn":     cedar.String(k.arn),
		"account": cedar.String(k.account),
		"region":  cedar.String(k.region),
		"default": cedar.Boolean(k.isDefault),
		"tags":    textRecord(k.tags),
	})
}

// actions are all actions, each in its group.
var actions = sync.OnceValue(func() map[cedar.EntityUID]cedar.Entity {
	all := make(map[cedar.EntityUID]cedar.Entity, len(groups))
	for op, group := range groups {
		id := cedar.NewEntityUID(typeAction, cedar.String(op))
		all[id] = cedar.Entity{UID: id, Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID(typeAction, cedar.String(group)))}
	}
	return all
})

// request is one question to policies. It is an EntityGetter for itself.
type request struct {
	cedar.Request
	principal kms.Principal
	key       *key         // nil if the resource is the client's account
	resource  cedar.Entity // once a policy looks at it
}

// newRequest asks whether p may do op with k, or with the client's account if k is nil.
func newRequest(c *Client, p kms.Principal, op kms.Operation, k *key, ec kms.Context) *request {
	resource := accountUID(c.account)
	if k != nil {
		resource = cedar.NewEntityUID(typeKey, cedar.String(k.id.String()))
	}
	return &request{
		Request: cedar.Request{
			Principal: cedar.NewEntityUID(typePrincipal, cedar.String(p.ID)),
			Action:    cedar.NewEntityUID(typeAction, cedar.String(op)),
			Resource:  resource,
			Context: cedar.NewRecord(cedar.RecordMap{
				"encryptionContext": textRecord(ec),
				"account":           cedar.String(c.account),
				"region":            cedar.String(c.region),
			}),
		},
		principal: p,
		key:       k,
	}
}

func accountUID(account string) cedar.EntityUID {
	return cedar.NewEntityUID(typeAccount, cedar.String(account))
}

// textRecord returns pairs as policies see them.
func textRecord(pairs map[string]string) cedar.Record {
	record := make(cedar.RecordMap, len(pairs))
	for name, value := range pairs {
		record[cedar.String(name)] = cedar.String(value)
	}
	return cedar.NewRecord(record)
}

// Get implements [cedar.EntityGetter].
func (r *request) Get(id cedar.EntityUID) (cedar.Entity, bool) {
	switch {
	case id == r.Principal:
		return cedar.Entity{UID: id, Attributes: cedar.NewRecord(cedar.RecordMap{
			"id":   cedar.String(r.principal.ID),
			"type": cedar.String(r.principal.Type),
		})}, true
	case id == r.Resource:
		if r.key != nil && r.resource.UID != id {
			r.resource.Parents = cedar.NewEntityUIDSet(accountUID(r.key.account))
			r.resource.Attributes = r.key.attributes()
		}
		r.resource.UID = id
		return r.resource, true
	}
	e, found := actions()[id]
	return e, found
}
