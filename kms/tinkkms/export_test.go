package tinkkms

var AssociatedData = associatedData
