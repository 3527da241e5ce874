// Package signedurl shares the objects of an encrypted bucket by URL.
//
// A store's own signed URLs would serve ciphertext. A [Signer] makes URLs of your
// service instead, and a [Handler] serves them: it decrypts what clients read, and
// encrypts what they write.
//
//	signer, err := signedurl.NewSigner(base, secret, nil)
//	bucket, err := blob.NewBucket(inner, "photos", cipher, &blob.Options{Signer: signer})
//	mux.Handle("/shared/", signedurl.NewHandler(bucket.Bucket, signer, nil))
//
//	link, err := bucket.SignedURL(ctx, "2026/cat.jpg", nil) // to read, for an hour
//
// Whoever has a URL may do one thing with one object until the URL expires: read,
// write or delete it. [Signer.Sign] makes URLs that allow less, such as an upload
// of at most 10 MiB.
//
// URLs are passwords, and responses are plaintext. PROXIES.md shows how to keep
// both out of the logs, temporary files and caches of a proxy.
package signedurl
