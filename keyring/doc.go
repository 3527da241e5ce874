// Package keyring keeps the master keys of a service that encrypts what it
// stores, and rotates them.
package keyring
