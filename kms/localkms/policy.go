package localkms

import (
	"encoding/json"
	"fmt"
	"iter"
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
	set   policySet
	wrong error // of compiling
}

// policySet are policies, whose ids are their indices.
type policySet []*cedar.Policy

// All implements [cedar.PolicyIterator].
func (s policySet) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for i, p := range s {
			if !yield(cedar.PolicyID(strconv.Itoa(i)), p) {
				return
			}
		}
	}
}

func (s policySet) isForbid(id cedar.PolicyID) bool {
	i, err := strconv.Atoi(string(id))
	return err != nil || s[i].Effect() == cedar.Forbid
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

func parsePolicy(text string) (policySet, error) {
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
	for _, p := range list {
		if err := checkScope(p); err != nil {
			at := p.Position()
			return nil, policyError(at.Line, at.Column, err.Error())
		}
	}
	return policySet(list), nil
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
	type uid struct{ Type, ID string }
	type scope struct {
		Op         string `json:"op"`
		Slot       string `json:"slot"`
		Entity     *uid   `json:"entity"`
		Entities   []uid  `json:"entities"`
		EntityType string `json:"entity_type"`
		In         *struct {
			Slot   string `json:"slot"`
			Entity *uid   `json:"entity"`
		} `json:"in"`
	}
	bare := *p.AST()
	bare.Conditions = nil // which can be long
	data, err := cedar.NewPolicyFromAST(&bare).MarshalJSON()
	if err != nil {
		return err
	}
	var head struct{ Principal, Action, Resource scope }
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	check := func(what string, s scope, known func(uid) bool, types ...string) error {
		names := s.Entities
		if s.Entity != nil {
			names = append(names, *s.Entity)
		}
		if s.In != nil && s.In.Entity != nil {
			names = append(names, *s.In.Entity)
		}
		for _, name := range names {
			if !known(name) {
				return fmt.Errorf("no such %s: %s::%q", what, name.Type, name.ID)
			}
		}
		if s.EntityType != "" && !known(uid{Type: s.EntityType}) {
			return fmt.Errorf("no such type of %s: %s; want %s", what, s.EntityType, strings.Join(types, " or "))
		}
		if s.Slot != "" || s.In != nil && s.In.Slot != "" {
			return fmt.Errorf("template slot in place of a %s", what)
		}
		return nil
	}
	if err := check("principal", head.Principal, func(u uid) bool { return u.Type == typePrincipal }, typePrincipal); err != nil {
		return err
	}
	if err := check("action", head.Action, func(u uid) bool { return u.Type == typeAction && isAction(u.ID) }, typeAction); err != nil {
		return err
	}
	return check("resource", head.Resource, func(u uid) bool { return u.Type == typeKey || u.Type == typeAccount }, typeKey, typeAccount)
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
	decision, why := cedar.Authorize(p.set, r, r.request)
	for i := range why.Errors {
		if p.set.isForbid(why.Errors[i].PolicyID) {
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

// entity is a resource of policies: a key, or an account.
type entity struct {
	id   cedar.EntityUID
	key  *key // nil if it is an account
	once sync.Once
	full cedar.Entity // once get was called
}

// newKeyEntity returns a key as policies see it.
func newKeyEntity(k *key, id string) *entity {
	return &entity{id: cedar.NewEntityUID(typeKey, cedar.String(id)), key: k}
}

// newAccountEntity returns an account as policies see it.
func newAccountEntity(account string) *entity {
	return &entity{id: cedar.NewEntityUID(typeAccount, cedar.String(account))}
}

func (e *entity) get() cedar.Entity {
	e.once.Do(func() {
		e.full.UID = e.id
		if e.key != nil {
			e.full.Parents = cedar.NewEntityUIDSet(cedar.NewEntityUID(typeAccount, cedar.String(e.key.account)))
			e.full.Attributes = e.key.attributes()
		}
	})
	return e.full
}

// attributes are what policies can ask of a key.
func (k *key) attributes() cedar.Record {
	tags := make(cedar.RecordMap, len(k.tags))
	for name, value := range k.tags {
		tags[cedar.String(name)] = cedar.String(value)
	}
	return cedar.NewRecord(cedar.RecordMap{
		"id":      cedar.String(k.id.String()),
		"arn":     cedar.String(k.arn),
		"account": cedar.String(k.account),
		"region":  cedar.String(k.region),
		"default": cedar.Boolean(k.isDefault),
		"tags":    cedar.NewRecord(tags),
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
	request   cedar.Request
	principal kms.Principal
	resource  *entity
}

func newRequest(c *Client, p kms.Principal, op kms.Operation, resource *entity, ec kms.Context) *request {
	pairs := make(cedar.RecordMap, len(ec))
	for name, value := range ec {
		pairs[cedar.String(name)] = cedar.String(value)
	}
	return &request{
		request: cedar.Request{
			Principal: cedar.NewEntityUID(typePrincipal, cedar.String(p.ID)),
			Action:    cedar.NewEntityUID(typeAction, cedar.String(op)),
			Resource:  resource.id,
			Context: cedar.NewRecord(cedar.RecordMap{
				"encryptionContext": cedar.NewRecord(pairs),
				"account":           cedar.String(c.account),
				"region":            cedar.String(c.region),
			}),
		},
		principal: p,
		resource:  resource,
	}
}

// Get implements [cedar.EntityGetter].
func (r *request) Get(id cedar.EntityUID) (cedar.Entity, bool) {
	switch id {
	case r.request.Principal:
		return cedar.Entity{UID: id, Attributes: cedar.NewRecord(cedar.RecordMap{
			"id":   cedar.String(r.principal.ID),
			"type": cedar.String(r.principal.Type),
		})}, true
	case r.resource.id:
		return r.resource.get(), true
	}
	e, found := actions()[id]
	return e, found
}
