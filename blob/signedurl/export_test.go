package signedurl

// SignFields returns the query with these fields and a valid signature.
func SignFields(s *Signer, fields map[string]string) string {
	fields[paramSecret] = s.signing
	fields[paramSignature] = s.signature(s.secrets[s.signing], fields)
	return encodeQuery(fields)
}

// FileName is fileName.
func FileName(key string) string { return fileName(key) }
