// Package settings gives flags their values from the environment and from the profiles
// of a config file. The command line beats the environment, which beats the profile.
package settings

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Resolver is a [kong.Resolver] for flags that the command line does not give.
type Resolver struct {
	parsing  *kong.Context // the command line that the rest is about
	given    map[string]bool
	command  map[string]bool // flags of the command
	argument bool            // the command line has arguments
	profile  profile
	flags    map[string]*kong.Flag // of all commands
}

// Validate implements [kong.Resolver].
func (r *Resolver) Validate(*kong.Application) error { return nil }

// metaFlags are flags that say where settings are, or that show something else.
var metaFlags = []string{"help", "version", "config", "profile"}

// Name returns the name of a flag in a profile. It is that of the flag, unless another
// flag of that name means something else.
func Name(flag *kong.Flag) string {
	if name := flag.Tag.Get("setting"); name != "" {
		return name
	}
	return flag.Name
}

// Variable returns the environment variable of a setting.
func Variable(flag string) string {
	return "BLOBSEAL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Resolve implements [kong.Resolver].
func (r *Resolver) Resolve(parsing *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if parsing != r.parsing {
		if err := r.load(parsing); err != nil {
			return nil, err
		}
	}
	if slices.Contains(metaFlags, flag.Name) {
		return nil, nil
	}
	found, ok := r.find(Name(flag))
	if !ok {
		return nil, nil
	}
	if flag.Name == "kms-key" && !r.command["any-kms-key"] {
		found.values = found.values[:1] // the first one seals, the others open
	}
	var value any = found.values[0]
	if flag.IsSlice() {
		list := make([]any, len(found.values))
		for i, v := range found.values {
			list[i] = v
		}
		value = list
	} else if len(found.values) > 1 {
		return nil, message.Usagef("%s: %s takes one value", found.where, flag.Name)
	}
	return value, check(flag, value, found)
}

// check says where a value comes from that the flag does not take. Kong's own errors
// would blame the command line.
func check(flag *kong.Flag, value any, found setting) error {
	scratch := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Parse(kong.Scan().PushTyped(value, kong.FlagValueToken), scratch); err != nil {
		return message.Usagef("%s: %v", found.where, err)
	}
	for _, v := range found.values {
		if flag.Enum != "" && !flag.EnumMap()[v] {
			return message.Usagef("%s: %s: want one of %s", found.where, flag.Name, flag.Enum)
		}
	}
	return nil
}

// load prepares for a command line.
func (r *Resolver) load(parsing *kong.Context) error {
	*r = Resolver{parsing: parsing, given: map[string]bool{}, command: map[string]bool{}, flags: AllFlags(parsing.Model.Node)}
	for _, path := range parsing.Path {
		r.argument = r.argument || path.Positional != nil
		if path.Flag != nil {
			r.given[Name(path.Flag)] = true
		}
		for _, flag := range path.Flags {
			r.command[Name(flag)] = true
		}
	}
	path, name := r.globalValue("config"), r.globalValue("profile")
	if path == "" {
		if path = DefaultPath(); !exists(path) {
			if name != "" {
				return message.Usagef("no profile %q: there is no config file %s", name, path)
			}
			return nil
		}
	}
	f, err := readFile(path, r.flags)
	if err != nil {
		return err
	}
	if name == "" {
		name = f.selected
	}
	if name == "" {
		return nil
	}
	var known bool
	if r.profile, known = f.profiles[name]; !known {
		return message.Usagef("%s: %s", f.path, f.describeUnknown(name))
	}
	return nil
}

// globalValue returns the value of a flag that says where to find settings.
func (r *Resolver) globalValue(name string) string {
	if text, ok := r.parsing.FlagValue(r.flags[name]).(string); ok && text != "" {
		return text
	}
	return os.Getenv(Variable(name))
}

// AllFlags returns the flags of all commands by name.
func AllFlags(root *kong.Node) map[string]*kong.Flag {
	flags := map[string]*kong.Flag{}
	_ = kong.Visit(root, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok {
			flags[Name(f)] = f
		}
		return next(nil)
	})
	return flags
}

// The places of a setting, the stronger first.
const (
	commandLine = iota
	environment
	inProfile
	nowhere
)

// locate returns the strongest place that has a flag or variable, and its value.
func (r *Resolver) locate(name string) (place int, found setting) {
	if r.given[name] {
		return commandLine, setting{}
	}
	if text := os.Getenv(Variable(name)); text != "" {
		return environment, setting{[]string{text}, Variable(name)}
	}
	if found, ok := r.profile[name]; ok {
		return inProfile, found
	}
	return nowhere, setting{}
}

// Of the flags in a group, those in the strongest place count and the others are left
// out: --root-key-file on the command line replaces the passphrase-file of a profile.
var groups = [][]string{
	{"ring", "kms", "customer-key-file"},
	{"root-key-file", "passphrase-file", "passphrase-env", "passphrase-prompt", "root-kms-key", "generate-root-key", "passphrase"},
	{"new-root-key-file", "new-passphrase-file", "new-passphrase-env", "new-passphrase-prompt", "new-root-kms-key", "new-passphrase"},
	{"to-ring", "to-kms", "to-customer-key-file"},
	{"to-root-key-file", "to-passphrase-file", "to-passphrase-env", "to-passphrase-prompt", "to-root-kms-key", "to-passphrase"},
}

// keySettings are the settings that name keys.
var keySettings = []string{
	"ring", "kms", "customer-key-file", "kms-key", "principal",
	"root-key-file", "passphrase-file", "passphrase-env", "passphrase-prompt", "root-kms-key",
}

// find returns the value of a flag that the command line does not give. A setting that
// makes no sense for the keys of this command is left out.
func (r *Resolver) find(name string) (setting, bool) {
	place, found := r.locate(name)
	if place == commandLine || place == nowhere || !r.applies(name) {
		return setting{}, false
	}
	for _, group := range groups {
		if !slices.Contains(group, name) {
			continue
		}
		for _, other := range group {
			if stronger, _ := r.locate(other); stronger < place {
				return setting{}, false
			}
		}
	}
	return found, true
}

// hasValue reports whether a flag has a value in the end.
func (r *Resolver) hasValue(name string) bool {
	if !r.command[name] {
		return false
	}
	_, found := r.find(name)
	return r.given[name] || found
}

// applies reports whether a flag makes sense with the other flags.
func (r *Resolver) applies(name string) bool {
	if name == "kms" && !r.command["root-key-file"] { // an audit trail, which arguments name, too
		return !r.argument
	}
	if !r.command["ring"] || !r.command["customer-key-file"] { // else the command knows what it needs
		return true
	}
	if r.command["record"] && !r.hasValue("key-id") && slices.Contains(keySettings, name) { // shred needs keys for --key-id alone
		return false
	}
	switch name {
	case "kms-key", "any-kms-key", "bucket-key":
		return r.hasValue("kms")
	case "principal":
		return r.hasValue("kms") || strings.HasPrefix(r.textValue("root-kms-key"), "localkms:")
	case "root-key-file", "passphrase-file", "passphrase-env", "passphrase-prompt", "root-kms-key":
		return r.hasValue("kms") || r.hasValue("ring")
	}
	return true
}

// textValue returns the value of a flag as a text.
func (r *Resolver) textValue(name string) string {
	if r.given[name] {
		return fmt.Sprint(r.parsing.FlagValue(r.flags[name]))
	}
	if found, ok := r.find(name); ok {
		return found.values[0]
	}
	return ""
}
