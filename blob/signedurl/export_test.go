package signedurl

// SignFields returns the query with these fields and a valid signature.
func SignFields(s *Signer, fields map[string]string) string {
	fields[paramSecret] = s.secrets[0].id
	fields[paramSignature] = s.signature(&s.secrets[0], fields)
	return encodeQuery(fields)
}

// FileName is fileName.
func FileName(key string) string { return fileName(key) }
