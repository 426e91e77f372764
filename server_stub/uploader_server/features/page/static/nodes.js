// Nodes of the document: finding them, and changing only what differs.

export const $ = (selector, root = document) => root.querySelector(selector)

// Make the children of `parent` those of `items`, by their ids. A row that stays keeps the focus.
export function fill(parent, items, template, update) {
  const wanted = new Set(items.map((item) => item.id))
  for (const row of [...parent.children]) if (!wanted.has(row.dataset.id)) row.remove()
  const rows = new Map([...parent.children].map((row) => [row.dataset.id, row]))
  let next = parent.firstElementChild
  for (const item of items) {
    let row = rows.get(item.id)
    if (!row) {
      row = $(template).content.firstElementChild.cloneNode(true)
      row.dataset.id = item.id
    }
    if (row === next) next = next.nextElementSibling
    else parent.insertBefore(row, next)
    update(row, item)
  }
}

export function text(root, selector, words) {
  const node = $(selector, root)
  if (node.textContent !== words) node.textContent = words
}

export function bar(root, percent, label, status) {
  const node = $('progress', root)
  node.value = percent
  node.dataset.status = status
  node.setAttribute('aria-label', label)
}

// Copy `words`, and say so on the button; return false where a page may not.
export async function copy(button, words) {
  try {
    await navigator.clipboard.writeText(words)
  } catch {
    return false // not a secure context, or not allowed
  }
  const before = (button.dataset.words ??= button.textContent)
  button.textContent = 'Copied'
  setTimeout(() => (button.textContent = before), 2000)
  return true
}
