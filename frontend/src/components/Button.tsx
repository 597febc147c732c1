import type { ComponentProps } from 'react'

type ButtonProps = Omit<ComponentProps<'button'>, 'disabled'> & { busy?: boolean; look?: 'primary' | 'plain' }

/** A busy button keeps the focus, which a disabled one would drop. */
export function Button({ busy = false, look = 'primary', onClick, children, ...rest }: ButtonProps) {
  return (
    <button
      type="button"
      {...rest}
      className={`button button-${look}`}
      aria-disabled={busy}
      onClick={busy ? undefined : onClick}
    >
      {children}
    </button>
  )
}
