export class Memories {
    readables;
    ids = null;
    constructor(subject) {
        this.readables = readablesOf(subject);
    }
    async parts(api, signal) {
        this.ids ??= await Promise.all(this.readables.map((readable) => api.remember(readable, signal)));
        return this.ids.map((id) => ({ type: "memory", id }));
    }
    forget() {
        this.ids = null;
    }
}
function readablesOf(subject) {
    switch (subject.kind) {
        case "photo":
            return [{ image_url: { url: subject.photo.url } }];
        case "texts":
            return subject.texts;
        default:
            return [];
    }
}
