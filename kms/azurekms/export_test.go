package azurekms

var Encode = encode
