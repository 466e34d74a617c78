export function find(id, kind) {
    const element = document.getElementById(id);
    if (!(element instanceof kind))
        throw new Error(`The page has no ${kind.name} #${id}.`);
    return element;
}
export function create(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    Object.assign(element, properties);
    element.append(...children);
    return element;
}
