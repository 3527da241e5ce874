package main

import (
	"fmt"
	"regexp"
	"strings"
)

// changelogName is where the changelog is in the repository.
const changelogName = ".github/CHANGELOG.md"

// unreleased follows the version in the heading of a section until the release.
const unreleased = "(not released)"

// section returns the text of a version's section and whether it has been released.
// The heading of a section is "## v1.2.3 (date)".
func section(changelog, version string) (text string, released bool, err error) {
	heading := regexp.MustCompile(`(?m)^## ` + regexp.QuoteMeta(version) + ` \(([^)\n]*)\)\n`)
	found := heading.FindStringSubmatchIndex(changelog)
	if found == nil {
		return "", false, fmt.Errorf("%s has no section of %s (write one: ## %s %s)", changelogName, version, version, unreleased)
	}
	text, _, _ = strings.Cut(changelog[found[1]:], "\n## ")
	if text = strings.TrimSpace(text); text == "" {
		return "", false, fmt.Errorf("%s: the section of %s is empty (say what changed)", changelogName, version)
	}
	return text, "("+changelog[found[2]:found[3]]+")" != unreleased, nil
}

// setDate puts the date of the release into the heading of a version's section.
func setDate(changelog, version, date string) (string, error) {
	_, released, err := section(changelog, version)
	if err != nil {
		return "", err
	}
	if released {
		return "", fmt.Errorf("%s says that %s was released (choose the next version)", changelogName, version)
	}
	return strings.Replace(changelog, "## "+version+" "+unreleased, "## "+version+" ("+date+")", 1), nil
}
