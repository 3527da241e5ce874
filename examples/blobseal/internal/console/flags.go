package console

import (
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// ParsePairs parses texts of the form NAME=VALUE, each name once. Without texts it
// returns nil.
func ParsePairs(flag string, texts []string) (pairs map[string]string, err error) {
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, message.Usagef("%s %q: want NAME=VALUE", flag, text)
		}
		if _, twice := pairs[name]; twice {
			return nil, message.Usagef("%s: %q is given twice", flag, name)
		}
		if pairs == nil {
			pairs = map[string]string{}
		}
		pairs[name] = value
	}
	return pairs, nil
}

// CheckDays refuses a number of days out of bounds. Zero stands for the default.
func CheckDays(flag string, days, least, most int) error {
	if days != 0 && (days < least || days > most) {
		return message.Usagef("%s %d: want %d to %d", flag, days, least, most)
	}
	return nil
}
