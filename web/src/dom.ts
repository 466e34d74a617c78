// Elements of the page: found by their id, or made. Text is set as text, so that nothing in it is taken for HTML.

type Kind<E extends HTMLElement> = new () => E;

export function find<E extends HTMLElement>(id: string, kind: Kind<E>): E {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return element;
}

export function create<T extends keyof HTMLElementTagNameMap>(
  tag: T,
  properties: Partial<HTMLElementTagNameMap[T]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[T] {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}
