// Does the tasks that it reads, with the AWS SDK for JavaScript: one in a line of JSON.
// It answers each with a line.
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const load = createRequire(process.env.BLOBSEAL_AWS_JS + "/");
const sdk = load("@aws-sdk/client-s3");
const { Upload } = load("@aws-sdk/lib-storage");
const { getSignedUrl } = load("@aws-sdk/s3-request-presigner");

const s3 = new sdk.S3Client({ endpoint: process.env.URL, forcePathStyle: true, maxAttempts: 1 });
const Bucket = process.env.BUCKET;
const partSize = Number(process.env.PART_SIZE);

function read(mode, prefix = "") {
	if (!mode.customer) return {};
	const sum = createHash("md5").update(Buffer.from(mode.customer, "base64")).digest("base64");
	return { [prefix + "SSECustomerAlgorithm"]: "AES256", [prefix + "SSECustomerKey"]: mode.customer, [prefix + "SSECustomerKeyMD5"]: sum };
}

function write(mode) {
	if (mode.name === "SSE-S3") return { ServerSideEncryption: "AES256" };
	if (mode.name === "SSE-KMS") return { ServerSideEncryption: "aws:kms", SSEKMSKeyId: mode.keyID };
	return read(mode);
}

// headers are those that a signed request must bring.
function headers(fields) {
	const names = {
		ServerSideEncryption: "", SSEKMSKeyId: "-aws-kms-key-id",
		SSECustomerAlgorithm: "-customer-algorithm", SSECustomerKey: "-customer-key", SSECustomerKeyMD5: "-customer-key-MD5",
	};
	return Object.fromEntries(Object.entries(fields).map(([field, value]) => ["x-amz-server-side-encryption" + names[field], value]));
}

async function presign(command, fields) {
	return { url: await getSignedUrl(s3, command), headers: headers(fields) };
}

async function get(task, extra) {
	const got = await s3.send(new sdk.GetObjectCommand({ Bucket, Key: task.key, ...read(task.mode), ...extra }));
	writeFileSync(task.file, await got.Body.transformToByteArray());
	return {};
}

// copyInParts does what the SDK's users do: lib-storage has no copies.
async function copyInParts(task, source) {
	const object = { Bucket, Key: task.key };
	const { UploadId } = await s3.send(new sdk.CreateMultipartUploadCommand({ ...object, ...write(task.mode) }));
	const head = await s3.send(new sdk.HeadObjectCommand({ Bucket, Key: task.from, ...read(task.fromMode) }));
	const Parts = [];
	for (let start = 0; start < head.ContentLength; start += partSize) {
		const PartNumber = Parts.length + 1;
		const { CopyPartResult } = await s3.send(new sdk.UploadPartCopyCommand({
			...object, UploadId, PartNumber, ...source, ...read(task.mode),
			CopySourceRange: `bytes=${start}-${Math.min(start + partSize, head.ContentLength) - 1}`,
		}));
		Parts.push({ PartNumber, ETag: CopyPartResult.ETag });
	}
	await s3.send(new sdk.CompleteMultipartUploadCommand({ ...object, UploadId, MultipartUpload: { Parts }, ...read(task.mode) }));
	return {};
}

async function run(task) {
	const object = { Bucket, Key: task.key };
	switch (task.do) {
	case "put":
		if (task.parts) {
			await new Upload({ client: s3, partSize, queueSize: 4, params: { ...object, Body: createReadStream(task.file), ...write(task.mode) } }).done();
		} else {
			await s3.send(new sdk.PutObjectCommand({ ...object, Body: readFileSync(task.file), ...write(task.mode) }));
		}
		return {};
	case "get":
		return get(task, {});
	case "range":
		return get(task, { Range: `bytes=${task.offset}-${task.offset + task.length - 1}` });
	case "copy": {
		const source = { CopySource: `${Bucket}/${task.from}`, ...read(task.fromMode, "CopySource") };
		if (task.parts) return copyInParts(task, source);
		await s3.send(new sdk.CopyObjectCommand({ ...object, ...source, ...write(task.mode) }));
		return {};
	}
	case "list": {
		const sizes = {};
		for await (const page of sdk.paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket, Prefix: task.key })) {
			for (const o of page.Contents ?? []) sizes[o.Key] = o.Size;
		}
		return { sizes };
	}
	case "presign-get":
		return presign(new sdk.GetObjectCommand({ ...object, ...read(task.mode) }), read(task.mode));
	case "presign-put":
		return presign(new sdk.PutObjectCommand({ ...object, ...write(task.mode) }), write(task.mode));
	}
	throw new Error(task.do);
}

for await (const line of createInterface({ input: process.stdin })) {
	let answer;
	try {
		answer = await run(JSON.parse(line));
	} catch (e) {
		answer = { error: String(e), code: e.Code ?? e.name };
	}
	process.stdout.write(JSON.stringify(answer) + "\n");
}
