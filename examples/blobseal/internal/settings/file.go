package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/mitchellh/go-homedir"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// file is a config file.
type file struct {
	path     string
	selected string // the profile to use by default; may be empty
	profiles map[string]profile
}

// profile has the settings of one profile by the names of their flags.
type profile map[string]setting

// setting is the value of a flag, and where it is set, for errors.
type setting struct {
	values []string
	where  string
}

// DefaultPath returns the path of the config file that is read if it exists.
func DefaultPath() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "blobseal", "config.yaml")
}

// readFile reads a config file. Flags are those of all commands.
func readFile(path string, flags map[string]*kong.Flag) (*file, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, message.About(path, err)
	}
	f := &file{path: path, profiles: map[string]profile{}}
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
			return nil, f.errorAt(e.GetToken(), "%s", e.GetMessage())
		}
		return nil, message.Usagef("%s: %s", path, err)
	}
	for _, d := range doc.Docs {
		if d.Body == nil { // an empty file
			continue
		}
		if err := f.read(d.Body, flags); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *file) errorAt(t *token.Token, format string, args ...any) error {
	return message.Usagef("%s: %s", f.where(t), fmt.Sprintf(format, args...))
}

func (f *file) where(t *token.Token) string {
	return fmt.Sprintf("%s:%d:%d", f.path, t.Position.Line, t.Position.Column)
}

func (f *file) read(body ast.Node, flags map[string]*kong.Flag) error {
	entries, err := f.entries(body, "profile: NAME, and profiles: with the profiles")
	if err != nil {
		return err
	}
	var selectedAt *token.Token
	for _, entry := range entries {
		switch key := entry.Key.GetToken(); key.Value {
		case "profile":
			values, err := f.scalars(entry.Value)
			if err != nil {
				return err
			}
			f.selected, selectedAt = values[0], entry.Value.GetToken()
		case "profiles":
			profiles, err := f.entries(entry.Value, "NAME: with settings")
			if err != nil {
				return err
			}
			for _, p := range profiles {
				if f.profiles[p.Key.GetToken().Value], err = f.readProfile(p.Value, flags); err != nil {
					return err
				}
			}
		default:
			return f.errorAt(key, "%q is unknown; want profile or profiles", key.Value)
		}
	}
	if _, known := f.profiles[f.selected]; f.selected != "" && !known {
		return f.errorAt(selectedAt, "%s", f.describeUnknown(f.selected))
	}
	return nil
}

func (f *file) readProfile(body ast.Node, flags map[string]*kong.Flag) (profile, error) {
	p := profile{}
	entries, err := f.entries(body, "FLAG: VALUE")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		key := entry.Key.GetToken()
		if isSecret(key.Value, flags) {
			return nil, f.errorAt(entry.Value.GetToken(), "a secret does not belong here (remove %[1]s; give %[1]s-file: FILE%[2]s)", key.Value, variableHint(key.Value, flags))
		}
		flag := flags[key.Value]
		if flag == nil || slices.Contains(metaFlags, key.Value) {
			return nil, f.errorAt(key, "%q is no setting (write flags of commands, without --)", key.Value)
		}
		values, err := f.scalars(entry.Value)
		if err != nil {
			return nil, err
		}
		for i, value := range values {
			if why := secretIn(key.Value, value); why != "" {
				return nil, f.errorAt(entry.Value.GetToken(), "%s: %s", key.Value, why)
			}
			values[i] = f.resolve(flag, value)
		}
		p[key.Value] = setting{values, f.where(entry.Value.GetToken())}
	}
	return p, nil
}

// entries returns the entries of a mapping.
func (f *file) entries(n ast.Node, want string) ([]*ast.MappingValueNode, error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	case *ast.NullNode:
		return nil, nil
	}
	return nil, f.errorAt(n.GetToken(), "want %s", want)
}

// scalars returns the text of a value, or of each value of a list.
func (f *file) scalars(n ast.Node) (values []string, err error) {
	list := []ast.Node{n}
	if s, ok := n.(*ast.SequenceNode); ok {
		list = s.Values
	}
	for _, item := range list {
		switch item := item.(type) {
		case *ast.LiteralNode:
			values = append(values, item.Value.Value)
		case *ast.StringNode:
			values = append(values, item.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			values = append(values, item.GetToken().Value)
		default:
			return nil, f.errorAt(item.GetToken(), "want a text, a number, true, false or a list of them")
		}
	}
	if len(values) == 0 {
		return nil, f.errorAt(n.GetToken(), "the list is empty")
	}
	return values, nil
}

// resolve returns the path that a value means: ~ is the home directory, and a relative
// path begins at the file's directory. Other values stay as they are.
func (f *file) resolve(flag *kong.Flag, value string) string {
	if flag.PlaceHolder != "FILE" && flag.PlaceHolder != "DIR" || value == "" || value == "-" {
		return value
	}
	if home, err := homedir.Expand(value); err == nil {
		value = home
	}
	if filepath.IsAbs(value) {
		return value
	}
	return filepath.Join(filepath.Dir(f.path), value)
}

// describeUnknown says that there is no profile of a name, and which there are.
func (f *file) describeUnknown(name string) string {
	if len(f.profiles) == 0 {
		return fmt.Sprintf("no profile %q: the file has no profiles", name)
	}
	names := make([]string, 0, len(f.profiles))
	for known := range f.profiles {
		names = append(names, known)
	}
	slices.Sort(names)
	return fmt.Sprintf("no profile %q: want %s", name, strings.Join(names, ", "))
}

// isSecret reports whether a setting of that name would hold a secret: it is what a
// flag names a file for, or sounds like a secret.
func isSecret(name string, flags map[string]*kong.Flag) bool {
	if flags[name] != nil {
		return false
	}
	return flags[name+"-file"] != nil || secretName.MatchString(name)
}

var secretName = regexp.MustCompile(`(^|[-_])(password|passphrase|secret|token|credentials?)($|[-_])`)

func variableHint(name string, flags map[string]*kong.Flag) string {
	if flags[name+"-env"] != nil {
		return " or " + name + "-env: VARIABLE"
	}
	return ""
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	userInfo     = regexp.MustCompile(`^[a-z0-9+]+://[^/?#]*:[^/?#]*@`)
)

// secretIn says why a value holds a secret, or returns "". It never shows the value.
func secretIn(name, value string) string {
	_, notKey := keyring.ParseKey([]byte(value))
	switch {
	case strings.HasSuffix(name, "-file") && notKey == nil:
		return "this is a key: give the name of a file that holds it"
	case strings.HasSuffix(name, "-env") && !variableName.MatchString(value):
		return "this is not the name of a variable: a secret does not belong here"
	case userInfo.MatchString(value):
		return "the URL holds a password, which does not belong here"
	}
	return ""
}

// exists reports whether the default config file is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return path != "" && !errors.Is(err, fs.ErrNotExist)
}
