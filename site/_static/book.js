// Two things that a page does: tables of results are sorted by a click on a column's head, and Escape hides a meaning.

// The number that a cell begins with ("81.5 ± 0.2", "1,234", "+0.7"), else null.
const number = text => {
    const found = text.replaceAll(',', '').match(/^[<>=~+\s]*(-?\d+(\.\d+)?)/)
    return found && parseFloat(found[1])
}

const compare = (a, b) => {
    const [x, y] = [number(a), number(b)]
    if (x !== null && y !== null) return x - y
    return (x === null) - (y === null) || a.localeCompare(b)  // numbers come first
}

function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0]
    heads.forEach((head, column) => {
        const button = document.createElement('button')
        button.type = 'button'
        button.append(...head.childNodes)
        head.append(button)
        button.addEventListener('click', () => {
            const down = head.ariaSort === 'ascending', text = row => row.cells[column].textContent.trim()
            heads.forEach(other => other.removeAttribute('aria-sort'))
            head.ariaSort = down ? 'descending' : 'ascending'
            const rows = [...body.rows].sort((a, b) => compare(text(a), text(b)) * (down ? -1 : 1))
            body.append(...rows.filter(row => text(row)), ...rows.filter(row => !text(row)))  // empty cells last
        })
    })
}

document.addEventListener('DOMContentLoaded', () => {
    if (/\/(results|benchmarks)\//.test(location.pathname)) document.querySelectorAll('article table').forEach(makeSortable)
})
document.addEventListener('keydown', event => {
    if (event.key === 'Escape' && document.activeElement.matches('dfn')) document.activeElement.blur()
})
