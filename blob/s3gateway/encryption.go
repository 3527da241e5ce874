package s3gateway

import (
	"bytes"
	"context"
	"errors"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/s3api/controllers"

	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// configuration returns the encryption configuration of a bucket, or nil.
func (g *Gateway) configuration(ctx context.Context, bucket string) (*s3wire.Configuration, error) {
	var xml string
	err := g.getRecord(ctx, configPrefix+bucket, &xml)
	if errors.Is(err, errNoRecord) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s3wire.ParseConfiguration(bytes.NewReader([]byte(xml)))
}

func (g *Gateway) getEncryption(ctx fiber.Ctx, bucket, _ string) (*controllers.Response, error) {
	c, err := g.configuration(ctx.RequestCtx(), bucket)
	if err != nil {
		return nil, err
	}
	xml, err := c.XML()
	if err != nil {
		return nil, err
	}
	ctx.Response().Header.SetContentType(fiber.MIMEApplicationXML)
	return &controllers.Response{Data: xml}, nil
}

func (g *Gateway) putEncryption(ctx fiber.Ctx, bucket, _ string) (*controllers.Response, error) {
	c, err := s3wire.ParseConfiguration(bytes.NewReader(ctx.BodyRaw()))
	if err != nil {
		return nil, err
	}
	// Refuse a configuration that no write could honor.
	cipher, err := g.keys.ForWrite(nil, c)
	if err != nil {
		return nil, err
	}
	if cipher.Mode() == sse.ModeKMS && c.KeyID != "" {
		if _, err := g.encrypt(g.request(ctx.RequestCtx()), cipher, sse.Object{Bucket: bucket}); err != nil {
			return nil, err
		}
	}
	xml, err := c.XML()
	if err != nil {
		return nil, err
	}
	return nil, g.putRecord(ctx.RequestCtx(), configPrefix+bucket, string(xml))
}

func (g *Gateway) deleteEncryption(ctx fiber.Ctx, bucket, _ string) (*controllers.Response, error) {
	return nil, g.deleteRecord(ctx.RequestCtx(), configPrefix+bucket)
}
