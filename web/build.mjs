// Puts the page into the package: what tsc made in build/, the files beside this one, and example photos.

import { copyFile, mkdir, readdir, rm } from "node:fs/promises";

const web = new URL("./", import.meta.url);
const page = new URL("../src/weft/server/page/", web);
const photos = ["astronaut.jpg", "cat.jpg", "coffee.jpg"]; // 512, 451 and 600 pixels wide: small enough as they are

await rm(page, { recursive: true, force: true });
await mkdir(new URL("examples/", page), { recursive: true });
for (const source of await readdir(new URL("src/", web))) {
  const name = source.replace(/\.ts$/, ".js");
  await copyFile(new URL(`build/${name}`, web), new URL(name, page));
}
for (const name of ["index.html", "app.css", "icon.svg"]) {
  await copyFile(new URL(name, web), new URL(name, page));
}
for (const name of photos) {
  await copyFile(new URL(`../examples/${name}`, web), new URL(`examples/${name}`, page));
}
