package gcpkms

var AssociatedData = associatedData
