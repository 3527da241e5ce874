// Package signedurl makes signed URLs for the objects of an encrypted bucket and
// serves them.
//
// A store's own signed URL would serve ciphertext. A [Signer] makes URLs of your
// service instead, and a [Handler] serves them: it decrypts what clients read and
// encrypts what they write.
package signedurl
