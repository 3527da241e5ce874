package keys

// TargetFlags name the keys that a rewrap seals under.
type TargetFlags struct {
	ToRing             string `group:"target" placeholder:"FILE" help:"Another ring, under its newest version."`
	ToKMS              string `name:"to-kms" group:"target" placeholder:"DIR" help:"Another key service."`
	ToKMSKey           string `name:"to-kms-key" group:"target" placeholder:"KEY" help:"Key of the service: an id, ARN or alias. Of --to-kms by default alias/blobseal/default."`
	ToRootKeyFile      string `group:"target" placeholder:"FILE" help:"Root key of the other ring or service."`
	ToPassphraseFile   string `group:"target" placeholder:"FILE" help:"Passphrase of the other ring or service. Or set BLOBSEAL_TO_PASSPHRASE."`
	ToPassphraseEnv    string `group:"target" placeholder:"VARIABLE" help:"Variable that holds that passphrase."`
	ToPassphrasePrompt bool   `group:"target" help:"Ask for that passphrase on the terminal."`
	ToRootKMSKey       string `name:"to-root-kms-key" group:"target" placeholder:"URL" help:"Root of the other ring or service in a key service."`
	ToCustomerKeyFile  string `group:"target" placeholder:"FILE" help:"A customer key."`
}

// Target returns the keys to open with and the keys to seal under, for files that are
// under source. Same reports that the ring or service stays the same. If only the target
// has a key service, the principal is one of that service.
func (f TargetFlags) Target(source Source, bucketKey bool) (from, to Source, same bool) {
	to = Source{
		Ring:      f.ToRing,
		KMS:       f.ToKMS,
		BucketKey: bucketKey,
		Root: RootSource{
			KeyFile: f.ToRootKeyFile, PassphraseFile: f.ToPassphraseFile, PassphraseEnv: f.ToPassphraseEnv, PassphrasePrompt: f.ToPassphrasePrompt,
			KMSKey: f.ToRootKMSKey, Prefix: "to-", Variable: "BLOBSEAL_TO_PASSPHRASE",
		},
		Customer: f.ToCustomerKeyFile,
	}
	if f.ToKMSKey != "" {
		to.KMSKeys = []string{f.ToKMSKey}
	}
	same = to.Ring == "" && to.KMS == "" && to.Customer == "" && !to.Root.isNamed() &&
		(source.KMS != "" || f.ToKMSKey == "" && !to.BucketKey)
	if (to.KMS != "" || to.Root.Local()) && source.KMS == "" {
		source.Principal = ""
	}
	return source, to, same
}
