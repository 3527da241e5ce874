package azurekms

// Reparse returns what is written for what data is read as, and false for what is
// no ciphertext.
func Reparse(data []byte) ([]byte, bool) {
	c, ok := parseCiphertext(data)
	if !ok {
		return nil, false
	}
	out, err := c.marshal()
	return out, err == nil
}

// ReparseKeyID does the same for the ids of keys.
func ReparseKeyID(s string) (string, bool) {
	id, ok := parseKeyID(s)
	return id.String(), ok
}
