package s3gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/metrics"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/controllers"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
)

// RoutesOptions say how routes authenticate and authorize requests. Give them the values
// that the engine was started with.
type RoutesOptions struct {
	Root   middlewares.RootUserConfig
	IAM    auth.IAMService
	Region string

	// VirtualDomain is the domain in which each bucket has its own host, or empty.
	VirtualDomain string

	ReadOnly    bool // refuses PUT and DELETE
	DisableACLs bool
}

// route is a route for ?encryption.
type route struct {
	method, path, action string
	permissions          []auth.Action
	acl                  auth.Permission
	do                   func(ctx fiber.Ctx, bucket, key string) (*controllers.Response, error)
}

const (
	bucketPath = "/:bucket"
	objectPath = "/:bucket/*"
)

// Routes returns the routes for ?encryption, which the engine does not implement: PUT,
// GET and DELETE of a bucket's configuration, and PUT of an object's encryption, which
// is UpdateObjectEncryption. They authenticate and authorize requests as the engine's own
// routes do. Bucket policies have the actions s3:GetEncryptionConfiguration and
// s3:PutEncryptionConfiguration, but not s3:UpdateObjectEncryption. That operation needs
// s3:GetObject and s3:PutObject instead, as a copy of an object onto itself does.
func (g *Gateway) Routes(o RoutesOptions) []s3api.Option {
	get, put := []auth.Action{auth.GetEncryptionConfigurationAction}, []auth.Action{auth.PutEncryptionConfigurationAction}
	update := []auth.Action{auth.PutObjectAction, auth.GetObjectAction}
	routes := []route{
		{http.MethodGet, bucketPath, metrics.ActionGetBucketEncryption, get, auth.PermissionRead, g.getEncryption},
		{http.MethodPut, bucketPath, metrics.ActionPutBucketEncryption, put, auth.PermissionWrite, g.putEncryption},
		{http.MethodDelete, bucketPath, metrics.ActionDeleteBucketEncryption, put, auth.PermissionWrite, g.deleteEncryption},
		{http.MethodPut, objectPath, actionUpdate, update, auth.PermissionWrite, g.putObjectEncryption(o.IAM)},
	}
	opts := []s3api.Option{s3api.WithMiddleware("/", drainBody)}
	if o.VirtualDomain != "" {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			opts = append(opts, s3api.WithRoute(method, "/*", hostStyle(o.VirtualDomain)))
		}
	}
	for _, to := range routes {
		public := middlewares.AuthorizePublicBucketAccess(g, to.action, to.permissions[0], to.acl, o.Region, false)
		if to.path == objectPath { // S3 takes signed requests only
			public = refuseAnonymous
		}
		process := controllers.ProcessHandlers(g.controller(o, to), to.action, &controllers.Services{},
			decodePath,
			middlewares.BucketObjectNameValidator(),
			public,
			middlewares.VerifyPresignedV4Signature(o.Root, o.IAM, o.Region, false),
			middlewares.VerifyV4Signature(o.Root, o.IAM, o.Region, false, true, false),
			middlewares.VerifyChecksums(false, to.method == http.MethodPut, false),
			middlewares.ParseAcl(g),
		)
		opts = append(opts, s3api.WithRoute(to.method, to.path, middlewares.MatchQueryArgs("encryption"), skipObjects,
			middlewares.SetDefaultValues(o.Root, o.Region), process))
	}
	return opts
}

// controller authorizes a request and answers it.
func (g *Gateway) controller(o RoutesOptions, to route) controllers.Controller {
	return func(ctx fiber.Ctx) (*controllers.Response, error) {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(ctx.Path(), "/"), "/")
		acl := utils.ContextKeyParsedAcl.Get(ctx).(auth.ACL)
		err := auth.VerifyAccess(ctx, g, auth.AccessOptions{
			Iam: o.IAM, Acl: acl, AclPermission: to.acl, Bucket: bucket, Object: key, Actions: slices.Clone(to.permissions),
			IsRoot: utils.ContextKeyIsRoot.Get(ctx).(bool), Acc: utils.ContextKeyAccount.Get(ctx).(auth.Account),
			IsPublicRequest: utils.ContextKeyPublicBucket.IsSet(ctx), Readonly: o.ReadOnly, DisableACL: o.DisableACLs,
		})
		meta := &controllers.MetaOptions{BucketOwner: acl.Owner}
		if err != nil {
			return &controllers.Response{MetaOpts: meta}, err
		}
		response, err := to.do(ctx, bucket, key)
		if response == nil {
			response = &controllers.Response{}
		}
		response.MetaOpts = meta
		if err == nil && to.method == http.MethodDelete {
			meta.Status = http.StatusNoContent
		}
		return response, g.fail(to.action, &bucket, &key, err)
	}
}

// Marks of requests.
type (
	isObject  struct{} // the path is an object's key, and the host has the bucket
	isDecoded struct{} // the path was decoded
)

// decodePath decodes the path, once, as the engine does before its own routes.
func decodePath(ctx fiber.Ctx) error {
	if ctx.Locals(isDecoded{}) != nil {
		return nil
	}
	ctx.Locals(isDecoded{}, true)
	return middlewares.DecodeURL(ctx)
}

// hostStyle gives a request for ?encryption at a bucket's host the path that it would have
// at the server's host. The engine does the same for its own routes, after ours.
func hostStyle(domain string) fiber.Handler {
	parse := middlewares.HostStyleParser(domain)
	return func(ctx fiber.Ctx) error {
		bucket, _, ok := strings.Cut(string(ctx.Request().Host()), "."+domain)
		if !ok || bucket == "" || !ctx.Request().URI().QueryArgs().Has("encryption") {
			return ctx.Next()
		}
		if ctx.Path() == "/" || ctx.Method() == http.MethodPut {
			if err := decodePath(ctx); err != nil {
				return err
			}
			return parse(ctx)
		}
		ctx.Locals(isObject{}, true)
		return ctx.Next()
	}
}

// refuseAnonymous refuses requests without a signature.
func refuseAnonymous(ctx fiber.Ctx) error {
	if utils.IsPresignedURLAuth(ctx) || ctx.Get("Authorization") != "" {
		return nil
	}
	return s3err.GetAPIError(s3err.ErrAnonymousRequest)
}

// skipObjects leaves a request for an object to the engine.
func skipObjects(ctx fiber.Ctx) error {
	if ctx.Locals(isObject{}) != nil {
		utils.ContextKeySkip.Set(ctx, true)
	}
	return ctx.Next()
}
