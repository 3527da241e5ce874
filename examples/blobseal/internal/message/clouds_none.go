//go:build noclouds

package message

// responseWords returns "": this build has no clients of Azure and Vault.
func responseWords(error) string { return "" }
