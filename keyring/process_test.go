package keyring_test

const childEnv = "KEYRING_TEST_CHILD"

func runChild(string) int { return 0 }
