module github.com/blobseal/blobseal/internal/testbed/vectors

go 1.26.4

require (
	github.com/blobseal/blobseal v0.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
	github.com/stretchr/testify v1.12.1
)

require go.yaml.in/yaml/v3 v3.0.6 // indirect

replace github.com/blobseal/blobseal => ../../..
