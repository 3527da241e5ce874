package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/metrics"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/controllers"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"

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

// RoutesOptions tell routes how the engine authenticates: they are what the engine
// itself was started with.
type RoutesOptions struct {
	Root   middlewares.RootUserConfig
	IAM    auth.IAMService
	Region string

	// VirtualDomain is the domain below which each bucket has a host of its own, or
	// empty.
	VirtualDomain string
}

// Routes returns the routes for PUT, GET and DELETE of ?encryption, which the engine
// does not implement. They authenticate and authorize as the engine's other routes
// do: bucket policies know s3:GetEncryptionConfiguration and
// s3:PutEncryptionConfiguration.
func (g *Gateway) Routes(o RoutesOptions) []s3api.Option {
	routes := []struct {
		method, action string
		permission     auth.Action
		acl            auth.Permission
		do             func(fiber.Ctx, string) (*controllers.Response, error)
	}{
		{http.MethodGet, metrics.ActionGetBucketEncryption, auth.GetEncryptionConfigurationAction, auth.PermissionRead, g.getEncryption},
		{http.MethodPut, metrics.ActionPutBucketEncryption, auth.PutEncryptionConfigurationAction, auth.PermissionWrite, g.putEncryption},
		{http.MethodDelete, metrics.ActionDeleteBucketEncryption, auth.PutEncryptionConfigurationAction, auth.PermissionWrite, g.deleteEncryption},
	}
	var opts []s3api.Option
	if o.VirtualDomain != "" {
		for _, route := range routes {
			opts = append(opts, s3api.WithRoute(route.method, "/*", hostStyle(o.VirtualDomain)))
		}
	}
	for _, route := range routes {
		controller := func(ctx fiber.Ctx) (*controllers.Response, error) {
			bucket := ctx.Params("bucket")
			acl := utils.ContextKeyParsedAcl.Get(ctx).(auth.ACL)
			err := auth.VerifyAccess(ctx, g, auth.AccessOptions{
				Iam: o.IAM, Acl: acl, AclPermission: route.acl, Bucket: bucket, Actions: []auth.Action{route.permission},
				IsRoot: utils.ContextKeyIsRoot.Get(ctx).(bool), Acc: utils.ContextKeyAccount.Get(ctx).(auth.Account),
				IsPublicRequest: utils.ContextKeyPublicBucket.IsSet(ctx),
			})
			meta := &controllers.MetaOptions{BucketOwner: acl.Owner}
			if err != nil {
				return &controllers.Response{MetaOpts: meta}, err
			}
			response, err := route.do(ctx, bucket)
			if response == nil {
				response = &controllers.Response{}
			}
			response.MetaOpts = meta
			if err == nil && route.method == http.MethodDelete {
				meta.Status = http.StatusNoContent
			}
			return response, g.fail(route.action, &bucket, nil, err)
		}
		process := controllers.ProcessHandlers(controller, route.action, &controllers.Services{},
			middlewares.BucketObjectNameValidator(),
			middlewares.AuthorizePublicBucketAccess(g, route.action, route.permission, route.acl, o.Region, false),
			middlewares.VerifyPresignedV4Signature(o.Root, o.IAM, o.Region, false),
			middlewares.VerifyV4Signature(o.Root, o.IAM, o.Region, false, true, false),
			middlewares.VerifyChecksums(false, route.method == http.MethodPut, false),
			middlewares.ParseAcl(g),
		)
		opts = append(opts, s3api.WithRoute(route.method, "/:bucket", middlewares.MatchQueryArgs("encryption"), skipObjects,
			middlewares.SetDefaultValues(o.Root, o.Region), process))
	}
	return opts
}

func (g *Gateway) getEncryption(ctx fiber.Ctx, bucket string) (*controllers.Response, error) {
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

func (g *Gateway) putEncryption(ctx fiber.Ctx, bucket string) (*controllers.Response, error) {
	c, err := s3wire.ParseConfiguration(bytes.NewReader(ctx.BodyRaw()))
	if err != nil {
		return nil, err
	}
	// A configuration that no write could honour is refused now.
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

func (g *Gateway) deleteEncryption(ctx fiber.Ctx, bucket string) (*controllers.Response, error) {
	return nil, g.deleteRecord(ctx.RequestCtx(), configPrefix+bucket)
}

// objectPath marks a request to a bucket's host whose path is an object's key.
type objectPath struct{}

// hostStyle gives a request for ?encryption that goes to a bucket's host the path that
// it would have without such hosts. The engine does so for its own routes, after ours.
func hostStyle(domain string) fiber.Handler {
	parse := middlewares.HostStyleParser(domain)
	return func(ctx fiber.Ctx) error {
		bucket, _, ok := strings.Cut(string(ctx.Request().Host()), "."+domain)
		if !ok || bucket == "" || !ctx.Request().URI().QueryArgs().Has("encryption") {
			return ctx.Next()
		}
		if ctx.Path() == "/" {
			return parse(ctx)
		}
		ctx.Locals(objectPath{}, true)
		return ctx.Next()
	}
}

// skipObjects leaves a request whose path is an object's key to other routes.
func skipObjects(ctx fiber.Ctx) error {
	if ctx.Locals(objectPath{}) != nil {
		utils.ContextKeySkip.Set(ctx, true)
	}
	return ctx.Next()
}
